"""Shards from a folder of pictures: one folder a class, or a text file beside each picture."""

from pathlib import Path

from prolip.data.build.config import FolderConfig
from prolip.data.build.intake import EXTENSIONS, Candidate, store_pictures
from prolip.data.build.shards import BuildSummary


def build_folder(config: FolderConfig, out: Path) -> BuildSummary:
    """Builds shards in `out` from all pictures below `config.source`; hidden files and folders are passed over.

    Raises:
        ValueError: the source is no folder, holds no picture or too many bad ones, or `out` is not a builder's.
    """
    if not config.source.is_dir():
        raise ValueError(f"source: {config.source} is not a folder")
    make = _by_class if config.captions == "class" else _by_text
    candidates = [make(path, config) for path in find_pictures(config.source)]
    classes = sorted({str(one.record["class"]) for one in candidates if "class" in one.record})
    description = {
        "kind": "folder",
        "captions": config.captions,
        "classes": {name: class_text(name) for name in classes},
    }
    return store_pictures(candidates, config, out, description)


def find_pictures(source: Path) -> list[Path]:
    """The pictures below a folder by their extensions, sorted; hidden files and folders are passed over."""
    found = (path for path in source.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(source).parts))


def class_text(folder: str) -> str:
    """The words of a class: its folder's name with spaces for "_" and "-"."""
    return " ".join(folder.replace("_", " ").replace("-", " ").split())


def _name(path: Path, source: Path) -> str:
    # A name that is no UTF-8 is shown as well as it can be: JSON could not hold it.
    return str(path.relative_to(source)).encode(errors="surrogateescape").decode(errors="replace")


def _by_class(path: Path, config: FolderConfig) -> Candidate:
    name = _name(path, config.source)
    folder, slash, _ = name.partition("/")
    if not slash:
        problem = "it lies in no class folder; is it --captions text?"
        return Candidate(name, path, name, None, {"path": name}, problem)
    words = class_text(folder)
    captions = [template.format(words) for template in config.templates]
    record = {"path": name, "class": folder, "class_text": words, "captions": captions}
    return Candidate(name, path, name, captions[0], record)


def _by_text(path: Path, config: FolderConfig) -> Candidate:
    name = _name(path, config.source)
    record = {"path": name}
    beside = path.with_suffix(".txt")
    try:
        caption = beside.read_text(encoding="utf-8-sig").strip()
    except FileNotFoundError:
        return Candidate(name, path, name, None, record, f"no {beside.name} beside it")
    except (OSError, UnicodeDecodeError) as error:
        return Candidate(name, path, name, None, record, f"{beside.name}: {error}")
    if not caption:
        return Candidate(name, path, name, None, record, f"{beside.name} is empty")
    return Candidate(name, path, name, caption, record)
