"""The emoji suite: all measurements of the report, for the trained and for an untrained model."""

from prolip.demo.suite.evaluate import Evaluated, evaluate_emoji
from prolip.demo.suite.results import EmojiResults

__all__ = ["EmojiResults", "Evaluated", "evaluate_emoji"]
