"""Settings of the emoji shards, and of the data sets made of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prolip.errors import UserError, check_at_least


@dataclass(frozen=True, kw_only=True)
class EmojiConfig:
    """Build the emoji shards."""

    side: int = 40
    """Side of the square images in pixels."""
    test_share: float = 0.15
    """Share of each group's emoji in the test split."""
    val_share: float = 0.05
    """Share of each group's emoji in the validation split."""
    skin_tone_share: float = 0.2
    """Share of the training samples that are skin-tone variants, before they are mirrored."""
    mirror: bool = True
    """Add a mirrored copy of every training image, but for those that would say something else."""
    vocab_size: int = 2000
    """Largest vocabulary of the tokenizer."""
    context_length: int = 20
    """Context length of the model. The summary counts longer captions."""
    samples_per_shard: int = 1000
    """Largest number of samples per shard."""
    seed: int = 0
    """Seed of the splits, the choice of variants and the order of the training samples."""

    def __post_init__(self) -> None:
        check_at_least(1, side=self.side, vocab_size=self.vocab_size)
        check_at_least(1, context_length=self.context_length, samples_per_shard=self.samples_per_shard)
        for name in ("test_share", "val_share", "skin_tone_share"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(name, "must be in [0, 1)", getattr(self, name))
        if self.test_share + self.val_share >= 1:
            raise UserError("test_share", "must be below 1 with val_share", self.test_share + self.val_share)


@dataclass(frozen=True, kw_only=True)
class SuitesConfig:
    """Build datasets for the suites."""

    data: Path = Path("data/emoji")
    """Emoji shards, as `prolip data build emoji` writes them."""
