"""Write shards from a folder of images: one subfolder per class, or a text file beside each image."""

from pathlib import Path

from prolip.data.build.config import FolderConfig
from prolip.data.build.images import EXTENSIONS, Candidate, write_images
from prolip.data.build.shards import BuildSummary
from prolip.errors import UserError


def build_folder(config: FolderConfig, out: Path) -> BuildSummary:
    """Write shards to `out` from all images below `config.source`. Hidden files and folders are skipped.

    Raises:
        UserError: the source is not a folder, has no image or too many bad ones; or `out` holds other files.
    """
    if not config.source.is_dir():
        raise UserError(f"source: {config.source} is not a folder")
    make = _by_class if config.captions == "class" else _by_text
    candidates = [make(path, config) for path in find_images(config.source)]
    classes = sorted({str(image.record["class"]) for image in candidates if "class" in image.record})
    description = {
        "kind": "folder",
        "captions": config.captions,
        "classes": {name: class_text(name) for name in classes},
    }
    return write_images(candidates, config, out, description)


def find_images(source: Path) -> list[Path]:
    """List the image files below a folder, by extension, sorted. Hidden files and folders are skipped."""
    found = (path for path in source.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(source).parts))


def class_text(folder: str) -> str:
    """Return the class name in words: the folder's name with spaces for "_" and "-"."""
    return " ".join(folder.replace("_", " ").replace("-", " ").split())


def _name(path: Path, source: Path) -> str:
    # JSON cannot hold a file name that is not UTF-8, so bad bytes are replaced.
    return str(path.relative_to(source)).encode(errors="surrogateescape").decode(errors="replace")


def _by_class(path: Path, config: FolderConfig) -> Candidate:
    name = _name(path, config.source)
    folder, slash, _ = name.partition("/")
    if not slash:
        problem = "it is not in a class folder; did you mean --captions text?"
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
