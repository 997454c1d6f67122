"""The demo's suite: every figure of the emoji report, for the trained and for an untrained model."""

from prolip.eval.emoji.results import EmojiResults
from prolip.eval.emoji.suite import Evaluated, evaluate_emoji

__all__ = ["EmojiResults", "Evaluated", "evaluate_emoji"]
