"""Embed images and captions, and compare them.

python examples/embed_and_compare.py "animals and nature" "marine animal" "blowfish"
"""

import argparse

import torch

from prolip.data import BatchLoader, LoaderConfig
from prolip.data.device import device_batches
from prolip.gaussian import csd, inclusion_score
from prolip.pretrained.open import open_model


def main() -> None:
    """Print the uncertainty of some images, the caption nearest to each, and how captions include each other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", nargs="+", help="from general to specific")
    parser.add_argument("--model", default="runs/demo", help="anything that prolip.load opens")
    parser.add_argument("--shards", default="data/emoji/test-openmoji-*.tar")
    parser.add_argument("--num_images", type=int, default=5)
    options = parser.parse_args()

    model, tokenizer = open_model(options.model, None)
    images = LoaderConfig(
        shards=(options.shards,),
        batch_size=options.num_images,
        image_size=model.config.vision.image_size,
        captions=(),  # images only
        last_batch="keep",
    )
    with BatchLoader(images) as loader, torch.no_grad():
        batch = next(device_batches(loader, torch.device("cpu")))
        image = model.encode_image(batch.images)  # Gaussian(mean [N, D], log_var [N, D])
        text = model.encode_text(torch.from_numpy(tokenizer.encode(options.captions)).long())

    nearest = csd(image, text).argmin(1)
    for key, uncertainty, place in zip(batch.keys, image.total_var, nearest, strict=True):
        print(f"{key}: uncertainty {uncertainty:.3f}, nearest caption {options.captions[place]!r}")
    for caption, uncertainty in zip(options.captions, text.total_var, strict=True):
        print(f"{caption!r}: uncertainty {uncertainty:.3f}")
    for place in range(1, len(options.captions)):
        general, specific = text.rows(slice(place - 1, place)), text.rows(slice(place, place + 1))
        score = inclusion_score(specific, general).sum()  # positive if the second is the wider one
        print(f"{options.captions[place]!r} in {options.captions[place - 1]!r}: {score:+.2f}")


if __name__ == "__main__":
    main()
