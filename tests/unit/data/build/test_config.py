"""The settings that all builders share."""

from __future__ import annotations

from typing import Any

import pytest

from prolip.data.build.config import BuildConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_side": 0}, "max_side is 0: it must be at least 1"),
        ({"val_share": 1.0}, r"val_share = 1.0: must be in \[0, 1\)"),
        ({"max_bad_fraction": -0.1}, r"max_bad_fraction = -0.1: must be in \[0, 1\]"),
        ({"samples_per_shard": 0}, "samples_per_shard is 0: it must be at least 1"),
    ],
)
def test_build_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BuildConfig(**settings)
