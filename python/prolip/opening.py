"""Whatever a user names as a model, opened with the tokenizer that belongs to it: what the commands share."""

from __future__ import annotations

from pathlib import Path

from prolip.checkpoint import Checkpoint, CheckpointError, find_latest, load_checkpoint
from prolip.config import from_toml
from prolip.models import ProLIP
from prolip.models.architectures import from_official_json
from prolip.models.weights import load
from prolip.tokenizer import Tokenizer, TokenizerConfig


def open_run(source: str) -> Checkpoint | None:
    """The checkpoint of our training that `source` names; None where it names a model of another kind.

    Raises:
        ValueError: a run's folder has no usable checkpoint.
    """
    path = Path(source)
    if path.is_dir() and not (path / "config.json").exists():
        checkpoint, rejected = find_latest(path / "checkpoints")
        if checkpoint is None:
            raise ValueError(f"{source} has no usable checkpoint in checkpoints/{''.join(f'; {r}' for r in rejected)}")
        return checkpoint
    try:
        return load_checkpoint(path) if path.suffix == ".pt" and path.is_file() else None
    except CheckpointError:
        return None  # perhaps a released epoch_N.pt; what is no checkpoint at all `load` refuses


def open_model(source: str, tokenizer: str | None) -> tuple[ProLIP, Tokenizer]:
    """The model in a run, a checkpoint or the hub, on the CPU and in evaluation mode, and its tokenizer.

    `tokenizer` is "clip" or the path of a tokenizer.json; None is the one that the run was trained with.

    Raises:
        ValueError: there is no usable checkpoint, or nothing says which tokenizer it needs.
    """
    checkpoint, trained = open_run(source), None
    if checkpoint is None:
        try:
            model = load(source)
        except RuntimeError as error:  # an archive, but not of torch's making
            raise ValueError(f"{source} is damaged, or is no checkpoint") from error
    else:
        model = ProLIP(from_official_json(checkpoint.model_config)).eval()
        model.load_state_dict(checkpoint.model)
        trained = from_toml(checkpoint.config).data.tokenizer
    length = model.config.text.context_length
    if tokenizer is not None:
        clip = tokenizer == "clip"
        chosen = TokenizerConfig(
            kind="clip" if clip else "file", path=None if clip else Path(tokenizer), context_length=length
        )
    elif trained is not None:
        chosen = trained
    else:
        raise ValueError(f"{source} does not say which tokenizer it was trained with: give `clip` or a tokenizer.json")
    found = Tokenizer(chosen)
    rows = model.config.text.vocab_size
    if found.vocab_size > rows:
        raise ValueError(f"the tokenizer has {found.vocab_size} tokens: the model has a table of {rows}")
    return model, found
