"""Find the images that are nearest to a text. `prolip embed` and `prolip search` do the same for millions.

python examples/search.py "a picture of food" "bird"
"""

import argparse

import prolip
from prolip.data import StoreConfig, expand_shards
from prolip.embeddings import embed_shards
from prolip.metrics import retrieval_scores


def main() -> None:
    """Print the best images for each text, with their score and uncertainty."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--model", default="runs/demo", help="anything that prolip.load opens")
    parser.add_argument("--shards", nargs="+", default=["data/emoji/test-openmoji-*.tar"])
    parser.add_argument("--k", type=int, default=5)
    options = parser.parse_args()

    model = prolip.load(options.model)
    images = embed_shards(model, expand_shards(options.shards, StoreConfig()))
    texts = model.encode_texts(options.texts)
    best = retrieval_scores(texts, images.gaussian).topk(options.k)  # nearest by the sampled distance
    for text, scores, places in zip(options.texts, best.values, best.indices, strict=True):
        print(text)
        for score, place in zip(scores, places, strict=True):
            print(f"  {images.keys[place]}  score {score:.3f}  uncertainty {images.gaussian.total_var[place]:.3f}")


if __name__ == "__main__":
    main()
