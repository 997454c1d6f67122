"""The command: a model, a task, the data by `get_data`, then epochs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import open_clip
import torch
from open_clip.task import CLIPTask

from .data import get_data
from .params import parse_args
from .train import TrainState, restore_train_state_counters, train_one_epoch

STATES: list[TrainState] = []
"""The runs of this process, for the tests."""


def main(words: Sequence[str]) -> None:
    args = parse_args(words)
    model, *transforms = open_clip.create_model_and_transforms(
        args.model, precision=args.precision, device=args.device, output_dict=True
    )
    task = CLIPTask(model)
    optimizer = torch.optim.AdamW(task.trainable_module.parameters(), lr=1e-3)
    saved = torch.load(args.resume) if args.resume else {"epoch": 0}
    if args.resume:
        task.trainable_module.load_state_dict(saved["state_dict"])
        optimizer.load_state_dict(saved["optimizer"])
    data = get_data(
        args,
        (transforms[0], transforms[1]),
        epoch=saved["epoch"],
        tokenizer=open_clip.get_tokenizer(args.model),
        naflex_data_config=task.naflex_data_config,
    )
    steps: list[int] = []
    state = TrainState(task=task, optimizer=optimizer, scheduler=steps.append, epoch=saved["epoch"])
    restore_train_state_counters(state, None, data, args)
    STATES.append(state)
    folder = Path(args.logs, args.name, "checkpoints")
    folder.mkdir(parents=True)
    for epoch in range(state.epoch, args.epochs):
        state.epoch = epoch
        train_one_epoch(state, data, args)
        held = {"state_dict": task.trainable_module.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(held | {"epoch": epoch + 1}, folder / f"epoch_{epoch + 1}.pt")
