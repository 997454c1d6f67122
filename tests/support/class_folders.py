"""Images in folders named like their labels, and a tiny run that can classify them."""

from PIL import Image
from tests.support.untrained_run import write_run

LABELS = ("animals", "food", "travel")
COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200))


def write_class_folders(folder, count=40, labels=LABELS):
    """`count` images of each label, in a colour of its own that changes a little from image to image."""
    for label, colour in zip(labels, COLOURS, strict=True):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            shade = tuple(min(255, part + 3 * number) for part in colour)
            Image.new("RGB", (24, 24), shade).save(folder / label / f"{number:03}.png")


def write_calibrated_world(root):
    """`run`: a model; `mine`: labelled images; `elsewhere`: images of no label."""
    write_run(root / "run", root / "tokenizer.json", context_length=8)
    write_class_folders(root / "mine")
    (root / "elsewhere").mkdir()
    for number in range(6):
        Image.new("L", (24, 24), 40 * number).save(root / "elsewhere" / f"{number}.png")
