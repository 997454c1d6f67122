"""Embed an image and captions with onnxruntime, tokenizers, Pillow and numpy: without torch, and without prolip.

prolip export runs/demo --format onnx --onnx.uint8_images --out models/onnx
python examples/onnx_embed.py models/onnx image.png "food and drink" "travel"
"""

import sys

import numpy as np
from onnxruntime import InferenceSession
from PIL import Image
from tokenizers import Tokenizer


def main() -> None:
    """Print the uncertainty of an image and of captions, and the sampled distance (CSD) between them."""
    folder, file, *captions = sys.argv[1:]
    image_tower, text_tower = (InferenceSession(f"{folder}/{name}.onnx") for name in ("image", "text"))
    side = image_tower.get_inputs()[0].shape[1]
    image = Image.open(file).convert("RGB")
    width, height = (int(side * length / min(image.size)) for length in image.size)
    left, top = round((width - side) / 2), round((height - side) / 2)
    image = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))
    mean, log_var = image_tower.run(None, {"images": np.asarray(image)[None]})

    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")  # cleans, cuts and pads as the model expects
    ids = np.array([encoding.ids for encoding in tokenizer.encode_batch(captions)])
    text_mean, text_log_var = text_tower.run(None, {"token_ids": ids})

    image_var, text_var = np.exp(log_var).sum(1), np.exp(text_log_var).sum(1)
    csd = np.square(mean - text_mean).sum(1) + image_var + text_var
    print(f"{file}: uncertainty {image_var[0]:.4f}")
    for caption, uncertainty, distance in zip(captions, text_var, csd, strict=True):
        print(f"{caption!r}: uncertainty {uncertainty:.4f}, CSD {distance:.4f}")


if __name__ == "__main__":
    main()
