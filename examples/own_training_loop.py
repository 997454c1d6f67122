"""A training loop of your own around the loader, the model and the loss. Run it again to continue.

python examples/own_training_loop.py --data data/emoji --checkpoint runs/own.pt --steps 100
"""

import argparse
from pathlib import Path

import torch

from prolip.data import (
    AugmentConfig,
    BatchLoader,
    CaptionConfig,
    CaptionSource,
    Cursor,
    LoaderConfig,
    TokenizerConfig,
)
from prolip.data.device import device_batches
from prolip.distributed import Peers
from prolip.losses import LossConfig, ProlipLoss
from prolip.models import ARCHITECTURES, ProLIP


def main() -> None:
    """Train for some steps, print the loss, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--checkpoint", type=Path, default=Path("runs/own.pt"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch_size", type=int, default=64)
    options = parser.parse_args()

    torch.manual_seed(0)
    model = ProLIP(ARCHITECTURES["demo"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    loss = ProlipLoss(LossConfig(), Peers())
    cursor = None
    if options.checkpoint.exists():
        saved = torch.load(options.checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        cursor = Cursor.from_dict(saved["cursor"])

    length = model.config.text.context_length
    config = LoaderConfig(
        shards=(f"{options.data}/train-*.tar",),
        batch_size=options.batch_size,
        image_size=model.config.vision.image_size,
        augment=AugmentConfig(),
        captions=(CaptionConfig(sources=(CaptionSource(key="captions.name"),)),),
        tokenizer=TokenizerConfig(kind="file", path=options.data / "tokenizer.json", context_length=length),
        num_epochs=None,  # no end
    )
    with BatchLoader(config, resume=cursor) as loader:
        for step, batch in zip(range(options.steps), device_batches(loader, torch.device("cpu")), strict=False):
            terms = loss(model(batch.images, batch.token_ids))
            optimizer.zero_grad()
            terms.total.backward()
            optimizer.step()
            cursor = batch.cursor  # after this batch, whatever the loader has read ahead
            if step % 10 == 0:
                print(f"step {step}: loss {terms.total:.3f}, of it ppcl {terms.ppcl:.3f}")
    options.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "cursor": cursor.to_dict()}
    torch.save(state, options.checkpoint)


if __name__ == "__main__":
    main()
