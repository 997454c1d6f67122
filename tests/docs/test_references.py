"""Names in the prose exist: modules, attributes, files, folders, settings of a run."""

import re
from importlib import import_module
from pathlib import Path

from prolip.train.config import load_config

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "RELEASE.md", "SECURITY.md", "NOTICE")),
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if not {"_build", "api"} & set(path.parts)),
]
NAME = re.compile(r"`(prolip(?:\.\w+)+)")
PLACE = re.compile(r"(?<![\w/.~-])((?:python|rust|tests|docs|train|prolip|recipes|\.github)/[\w./-]*\w)(?![\w/*-])")
SECTIONS = r"data|loss|optim|model\.vision|model\.text|parallel|log|ema|lock|validation"
SETTING = re.compile(rf"`((?:{SECTIONS})(?:\.[a-z_]+)+)(?= =|`)")
ELSEWHERE = {"python/prolip/_core", "docs/_build"}
"""Made by a build."""


def exists(name):
    """Whether a dotted name is a module, or an attribute of one."""
    words = name.split(".")
    for end in range(len(words), 0, -1):
        try:
            found = import_module(".".join(words[:end]))
        except ModuleNotFoundError:
            continue
        for word in words[end:]:
            if not hasattr(found, word) and word not in getattr(found, "__annotations__", {}):
                return False
            found = getattr(found, word, None)
        return True
    return False


def test_names_and_paths_in_the_docs_exist():
    roots = (ROOT, ROOT / "python", ROOT / "python/prolip", *(ROOT / "rust").iterdir())
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        assert [name for name in set(NAME.findall(text)) if not exists(name)] == [], page.stem
        places = {place for place in PLACE.findall(text) if not any(place.startswith(start) for start in ELSEWHERE)}
        missing = [place for place in places if not any((root / place).exists() for root in roots)]
        assert missing == [], page.stem


def test_settings_named_in_the_docs_exist():
    config = load_config(["vit-b16-datacomp-1b-1.28b", "with-native", "--data.shards", "a.tar"])
    for page in PAGES:
        for setting in set(SETTING.findall(page.read_text(encoding="utf-8"))) - {"lock.json"}:  # a file
            value = config
            for word in setting.split("."):
                assert hasattr(value, word), f"{page.stem} names {setting}, which does not exist"
                value = getattr(value, word)
