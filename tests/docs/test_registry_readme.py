"""docs/registry_readme.py: every link of the README leads to a file from a registry's page too."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = "https://github.com/OWNER/NAME"


def test_every_link_of_the_readme_becomes_absolute():
    absolute = runpy.run_path(str(ROOT / "docs" / "registry_readme.py"))["absolute"]
    text = absolute((ROOT / "README.md").read_text(encoding="utf-8"), HOME, "1.2.3")
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert all(link.startswith("https://") for link in links)
    ours = [link for link in links if link.startswith(HOME)]
    assert f"![The report that the demo writes]({HOME}/raw/v1.2.3/docs/report.png)" in text
    assert len(ours) > 30
    for link in ours:
        _, _, place = link.removeprefix(HOME).split("/", 2)
        assert (ROOT / place.removeprefix("v1.2.3/").partition("#")[0]).exists(), link


def test_the_release_rewrites_the_readme_before_it_builds():
    workflow = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    _, *builds = workflow.split("PyO3/maturin-action@")
    assert len(builds) == 2
    for before in workflow.split("PyO3/maturin-action@")[:-1]:
        assert before.rstrip().endswith("python docs/registry_readme.py\n      - uses:")
