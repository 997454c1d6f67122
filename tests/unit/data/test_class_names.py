"""Names of classes: their text, and their place among others."""

import pytest

from prolip.data.class_names import class_places, class_text


@pytest.mark.parametrize("name", ["t shirt", "t-shirt", "t_shirt", " t__shirt "])
def test_spaces_lines_and_hyphens_are_the_same(name):
    assert class_text(name) == "t shirt"
    assert class_places([name], ["hat", "t-shirt"]) == [1]


def test_the_same_spelling_comes_first_and_numbers_if_wanted():
    assert class_places(["a-b", "a_b", "a b"], ["a_b", "a-b"]) == [1, 0, 1]
    assert class_places(["1", 0, "-1", "x"], ["x", "y"], numbers=True) == [1, 0, -1, 0]
    assert class_places(["1", "-1"], ["0", "1"]) == [1, -1], "no name for -1, which often means no class"
