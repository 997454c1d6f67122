from collections import Counter
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st

from prolip.cli import main
from prolip.errors import UserError
from prolip.store.selection import Chosen, combine, read_selection, write_selection

Samples = dict[tuple[str, int], int]
SELECTIONS = st.dictionaries(
    st.tuples(st.sampled_from(["b.tar", "a.tar", "s3://c/d.tar"]), st.integers(0, 20)), st.integers(1, 3)
)
UNION = {"and": lambda a, b: a & b, "or": lambda a, b: a | b}


def write(path, samples, stamp="7"):
    chosen = []
    for source in dict.fromkeys(source for source, _ in samples):
        found = sorted((row, count) for (name, row), count in samples.items() if name == source)
        rows, counts = (np.array(each) for each in zip(*found, strict=True))
        repeats = None if (counts == 1).all() else counts.astype(np.uint16)
        chosen.append(Chosen(source, stamp, rows.astype(np.uint32), repeats))
    assert write_selection(path, chosen) == len(samples)
    return path


def contents(chosen):
    ones = [(one, one.repeats if one.repeats is not None else np.ones_like(one.rows)) for one in chosen]
    return {
        (one.source, int(row)): int(count) for one, counts in ones for row, count in zip(one.rows, counts, strict=True)
    }


@given(SELECTIONS, SELECTIONS, st.sampled_from(["and", "or", "without"]))
def test_selections_are_written_read_and_combined(tmp_path_factory, one, other, how):
    folder = tmp_path_factory.mktemp("selections")
    first, second = write(folder / "first", one), write(folder / "second", other)
    assert contents(list(read_selection(first))) == one
    expected = (
        {sample: count for sample, count in one.items() if sample not in other}
        if how == "without"
        else dict(UNION[how](Counter(one), Counter(other)))
    )
    combined = list(combine(read_selection(first), read_selection(second), how))
    assert contents(combined) == expected
    assert {one.stamp for one in combined if len(one.rows)} <= {"7"}


@pytest.mark.parametrize("stamps", [("7", ""), ("", "7"), ("7", "7"), ("", "")])
@pytest.mark.parametrize("how", ["and", "or", "without"])
def test_a_combination_keeps_the_stamp_of_either_selection(stamps, how):
    sides = [
        [Chosen("a.tar", stamp, np.array(rows, np.uint32))] for stamp, rows in zip(stamps, ([1, 2], [2]), strict=True)
    ]
    assert [one.stamp for one in combine(*sides, how)] == [max(stamps)]


def test_a_source_that_changed_between_two_selections_is_named(tmp_path):
    first = write(tmp_path / "first", {("a.tar", 1): 1})
    second = write(tmp_path / "second", {("a.tar", 2): 1}, stamp="8")
    with pytest.raises(UserError, match=r"a\.tar") as error:
        list(combine(read_selection(first), read_selection(second), "or"))
    assert error.value.field == "selection"


def test_files_are_combined_in_turn(tmp_path, capsys):
    files = [
        str(write(tmp_path / f"{number}", {("a.tar", row): 1 for row in rows}))
        for number, rows in enumerate(([1, 2, 3, 4], [1, 2, 3], [3]))
    ]
    for how, left in (("and", [3]), ("without", [4])):
        assert main(["data", "combine", *files, "--how", how, "--out", str(tmp_path / "out")]) == 0
        assert contents(list(read_selection(str(tmp_path / "out")))) == {("a.tar", row): 1 for row in left}
        assert f"1 samples\nwrote {tmp_path / 'out'}; next: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "column",
    [
        ("rows", [[3, 3]]),
        ("rows", [[1, None]]),
        ("repeats", [[1, 0]]),
        ("repeats", [[1, None]]),
        ("source", [None]),
    ],
)
def test_what_is_no_selection_is_refused(tmp_path, column):
    columns = {"source": ["a.tar"], "stamp": [""], "rows": [[1, 2]], "repeats": [[1, 2]]}
    types = {"rows": pa.list_(pa.uint32()), "repeats": pa.list_(pa.uint16())}
    table = {name: pa.array(values, types.get(name)) for name, values in columns.items() if name != column[0]}
    table[column[0]] = pa.array(column[1], types.get(column[0], pa.string()))
    pq.write_table(pa.table(table), tmp_path / "chosen")
    for path in (tmp_path / "chosen", tmp_path / "absent"):
        with pytest.raises(UserError) as error:
            list(read_selection(path))
        assert error.value.field == "selection"


def test_a_damaged_file_is_refused_or_reads_the_same(tmp_path):
    chosen = {(f"{source}.tar", row * row): 1 + row % 2 for source in range(4) for row in range(9)}
    whole = write(tmp_path / "chosen", chosen).read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        (tmp_path / "chosen").write_bytes(damaged)
        with suppress(UserError):
            assert contents(list(read_selection(tmp_path / "chosen"))) == chosen, f"byte {place}"
