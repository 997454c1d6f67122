"""Small data sets of images with captions: pairs with COCO's ids, and hierarchies in HierarCaps' layout."""

import csv
import json
import random

from tests.support.datacomp_sets import encoded_image, write_lists, write_shards

WORDS = ["animals", "nature", "food", "travel", "emoji", "picture"]
COUNT = 12


def caption(number, place):
    words = [WORDS[(number + step * (place + 1)) % len(WORDS)] for step in range(2 + (number + place) % 5)]
    return " and ".join(words)


def write_pairs(folder):
    """Images with a class, three captions a line, and the same with COCO's ids in json."""
    draw = random.Random(5)
    write_lists(folder, WORDS[:4], ["a picture of {c}", "{c}"])
    samples = []
    for number in range(COUNT):
        captions = [caption(number, place) for place in range(3)]
        record = {
            "cocoid": 100 + number,
            "sentids": [1000 + 3 * number + place for place in range(3)],
            "sentences": [{"raw": text} for text in captions],
        }
        samples.append(
            [
                (f"p{number:03}.png", encoded_image(draw)),
                (f"p{number:03}.cls", str(number % 4).encode()),
                (f"p{number:03}.txt", "\n".join(captions).encode()),
                (f"p{number:03}.json", json.dumps(record).encode()),
            ]
        )
    write_shards(folder / "test", samples)


def write_hierarchies(folder):
    draw = random.Random(6)
    folder.mkdir(parents=True)
    for number in range(8):
        (folder / f"h{number}.png").write_bytes(encoded_image(draw))
    with (folder / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["captions", "image_url", "caption", "images"])
        for number in range(6):
            levels = ["picture", WORDS[number % 2], caption(number, 0)]
            images = ["h0.png", f"h{1 + number % 2}.png", f"h{2 + number}.png"]
            address = f"http://images.example.org/val/h{2 + number}.png?size=large"
            table.writerow([" => ".join(levels), address, caption(number, 1), " => ".join(images)])


def write_annotations(folder, count):
    """COCO's two files of annotations, without images; returns the categories of each image, N.jpg for image N."""
    draw = random.Random(3)
    found = [draw.sample(range(1, 6), draw.randint(0, 5)) for _ in range(count)]
    images = [{"id": number, "file_name": f"{number}.jpg", "height": 4} for number in range(count)]
    captions = [{"image_id": number, "id": 5 + number, "caption": f"One, of {number}. \n"} for number in range(count)]
    objects = [
        {"image_id": number, "category_id": one, "segmentation": [[0.5]]}
        for number, categories in enumerate(found)
        for one in categories
    ]
    folder.mkdir(parents=True)
    for name, some in (("instances", objects), ("captions", captions)):
        text = json.dumps({"images": images, "annotations": some})
        (folder / f"{name}_val2014.json").write_text(text)
    return list(map(set, found))
