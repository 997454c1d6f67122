"""Typed results survive JSON, and wrong ones are errors that name the field."""

import json
import math
from dataclasses import dataclass

import pytest

from prolip.demo.suite.results import EmojiResults
from prolip.evaluation.typed_json import from_json, to_json


@dataclass(frozen=True)
class Inner:
    share: float
    count: int


@dataclass(frozen=True)
class Outer:
    name: str
    inner: list[Inner]
    maybe: Inner | None
    table: dict[str, float]


def test_round_trip_with_nan_as_null() -> None:
    outer = Outer("x", [Inner(math.nan, 1), Inner(0.5, 2)], None, {"a": 1.0, "b": math.inf})
    text = to_json(outer)
    assert json.loads(text)["inner"][0]["share"] is None
    back = from_json(Outer, text)
    assert math.isnan(back.inner[0].share)
    assert back.inner[1] == Inner(0.5, 2)
    assert math.isnan(back.table["b"])
    assert back.maybe is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, r"Outer\.name: 3 is not"),
        ({"inner": [{"share": 1.0}]}, r"Outer\.inner\[0\]: missing \['count'\]"),
        ({"inner": [{"share": 1.0, "count": 1, "more": 1}]}, r"unknown \['more'\]"),
        ({"inner": [{"share": "1", "count": 1}]}, r"Outer\.inner\[0\]\.share"),
        ({"inner": [{"share": True, "count": 1}]}, r"Outer\.inner\[0\]\.share"),
        ({"maybe": 1}, r"Outer\.maybe: 1 is not a table"),
        ({"table": {"a": "b"}}, r"Outer\.table\.a"),
    ],
)
def test_wrong_json_types_name_their_place(change: dict[str, object], message: str) -> None:
    good = {"name": "x", "inner": [], "maybe": None, "table": {}}
    with pytest.raises(ValueError, match=message):
        from_json(Outer, json.dumps(good | change))


def test_an_integer_is_read_as_a_float() -> None:
    assert from_json(Inner, '{"share": 1, "count": 1}') == Inner(1.0, 1)


def test_emoji_results_survive_json(emoji_results: EmojiResults) -> None:
    text = emoji_results.to_json()
    assert EmojiResults.from_json(text).to_json() == text
