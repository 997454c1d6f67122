"""Fine-tune a model on other shards: all of it, or only the two heads that give its variances.

python examples/fine_tune.py --start runs/demo --shards 'data/emoji/val-*.tar' --out runs/fine-tuned
"""

import argparse
import sys

import prolip
from prolip.train import main as train


def main() -> int:
    """Train, then print the uncertainty of some captions before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", default="runs/demo", help="anything that prolip.load opens")
    parser.add_argument("--shards", default="data/emoji/val-*.tar")
    parser.add_argument(
        "--tokenizer", default="data/emoji/tokenizer.json", help="the one that the start was trained with"
    )
    parser.add_argument("--recipe", default="demo", help="name or path; gives captions, masking and loss")
    parser.add_argument("--out", default="runs/fine-tuned")
    parser.add_argument("--samples_seen", type=int, default=6400)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--all", action="store_true", help="train both towers, not only the heads")
    parser.add_argument("--captions", nargs="+", default=["animals and nature", "blowfish"])
    options = parser.parse_args()

    flags = [options.recipe, "--start_from", options.start, "--architecture", "start_from", "--out", options.out]
    flags += ["--shards", options.shards, "--data.tokenizer.path", options.tokenizer, "--precision", "fp32"]
    flags += ["--samples_seen", str(options.samples_seen), "--batch_size", str(options.batch_size)]
    flags += ["--optim.lr", "1e-4", "--optim.warmup_steps", "10"]
    if not options.all:
        flags += ["--lock.image", "True", "--lock.text", "True", "--lock.unc_vectors", "True"]
    status = train(flags)
    if status != 0:
        return status

    before, after = (prolip.load(source).encode_texts(options.captions) for source in (options.start, options.out))
    for caption, old, new in zip(options.captions, before.uncertainty, after.uncertainty, strict=True):
        print(f"{caption!r}: uncertainty {old:.3f} before, {new:.3f} after")
    return 0


if __name__ == "__main__":
    sys.exit(main())
