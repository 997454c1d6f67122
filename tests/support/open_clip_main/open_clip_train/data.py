"""open_clip's own data: here only a sign that they were asked for."""

from __future__ import annotations

import argparse
from typing import Any


def get_data(
    args: argparse.Namespace,
    preprocess_fns: tuple[Any, Any],
    epoch: int = 0,
    tokenizer: Any = None,
    naflex_data_config: Any = None,
) -> dict[str, Any]:
    """The same parameters, so that a call that does not fit them fails."""
    del preprocess_fns, epoch, tokenizer, naflex_data_config
    data: dict[str, Any] = {}
    if args.train_data:
        data["train"] = "open_clip's own shards"
    if args.val_data:
        data["val-of-open-clip"] = args.val_data
    return data
