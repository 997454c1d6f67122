"""Tables for a terminal."""

from prolip.report.text_table import align


def test_the_first_columns_are_to_the_left_and_the_others_to_the_right():
    assert list(align([["", "rate"], ["floor", "9"]])) == ["       rate", "floor     9"]
    assert list(align([["a", "bcd", "9"], ["ab", "b", "10"]], 2)) == ["a   bcd   9", "ab  b    10"]
    assert list(align([["a", "bcd"], ["ab", "b"]], 2)) == ["a   bcd", "ab  b"]


def test_a_row_is_one_line_and_aligned_by_the_width_of_its_letters():
    assert list(align([["two\nlines\x1b[31m", "1"], ["一", "2"], ["e\u0301", "3"]])) == [
        "two\\nlines\\u001b[31m  1",
        "一                    2",
        "e\u0301                     3",
    ]
