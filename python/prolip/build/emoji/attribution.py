"""Credits for the art and data."""

import json
from pathlib import Path

ATTRIBUTIONS: list[dict[str, str]] = json.loads(
    Path(__file__).with_name("attributions.json").read_text(encoding="utf-8")
)
"""Of each part: its authors, licence, source, and changes."""


def attribution_page() -> str:
    """Write ATTRIBUTION.md, which must be kept with the shards."""
    lines = ["# Whose art this is", "", "Keep this page with the shards.", ""]
    for entry in ATTRIBUTIONS:
        lines += [
            f"- **{entry['part']}**: {entry['credit']}; {entry['licence']}; {entry['source']}; "
            f"from the package {entry['package']}; changes: {entry['changes']}."
        ]
    lines += ["", "The openmoji part is share-alike: what is made from it is passed on under CC BY-SA 4.0."]
    return "\n".join(lines) + "\n"
