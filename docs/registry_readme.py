"""Make README.md's relative links absolute, for a package registry's page: `python docs/registry_readme.py`.

The links are to the files of the version's tag. The release workflow runs this before it builds.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(!?)(\[[^\]]*\])\((?!\w+:|#)")


def absolute(text: str, repository: str, version: str) -> str:
    """With absolute links: to GitHub's page of a file, or to the file itself for an image."""
    return LINK.sub(lambda m: f"{m[1]}{m[2]}({repository}/{'raw' if m[1] else 'blob'}/v{version}/", text)


def main() -> None:
    """Rewrite README.md."""
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]["package"]
    readme = ROOT / "README.md"
    text = absolute(readme.read_text(encoding="utf-8"), cargo["repository"], cargo["version"])
    readme.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
