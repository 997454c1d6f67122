"""Embed images and captions, and compare them.

python examples/embed_and_compare.py "animals and nature" "marine animal" "blowfish" --images cat.jpg dog.jpg
"""

import argparse

import prolip


def main() -> None:
    """Print the uncertainty of some images, the caption nearest to each, and how captions include each other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", nargs="+", help="from general to specific")
    parser.add_argument("--model", default="runs/demo", help="anything that prolip.load opens")
    parser.add_argument(
        "--images", nargs="+", default=["data/emoji/test-openmoji-*.tar"], help="files, folders, shards"
    )
    parser.add_argument("--show", type=int, default=5, help="images to print")
    options = parser.parse_args()

    model = prolip.load(options.model)
    images = model.encode_images(options.images)  # Gaussian(mean [N, D], log_var [N, D])
    texts = model.encode_texts(options.captions)

    nearest = prolip.csd(images, texts).argmin(1)
    for place in range(min(options.show, len(nearest))):
        caption = options.captions[nearest[place]]
        print(f"image {place}: uncertainty {images.uncertainty[place]:.3f}, nearest caption {caption!r}")
    for caption, uncertainty in zip(options.captions, texts.uncertainty, strict=True):
        print(f"{caption!r}: uncertainty {uncertainty:.3f}")
    for place in range(1, len(options.captions)):
        score = prolip.inclusion_score(texts[place], texts[place - 1]).sum()  # positive if the second is the wider one
        print(f"{options.captions[place]!r} in {options.captions[place - 1]!r}: {score:+.2f}")


if __name__ == "__main__":
    main()
