"""Users see an error as one line, whatever characters their data's names hold."""

import pickle

import pytest
from tests.support.refusals import refusal_of

from prolip.errors import DataError, NoSampleError, UserError, check_at_least, sentence
from prolip.store.atomic_writes import write_atomic


@pytest.mark.parametrize("kind", [lambda *words: DataError(": ".join(words)), NoSampleError, UserError])
def test_names_from_data_are_escaped_in_messages(kind):
    raised = kind("shard bär/猫.tar", "sample a\n\x1b[2J\x9b1m\u202eb: damaged")
    assert str(raised) == r"shard bär/猫.tar: sample a\n\u001b[2J\u009b1m\u202eb: damaged"


def test_an_error_of_data_keeps_its_fields_between_processes():
    error = pickle.loads(pickle.dumps(DataError("must be UTF-8", "1.tar", "k7", "txt").within("set")))
    assert (error.shard, error.key, error.member, error.reason) == ("set: 1.tar", "k7", "txt", "must be UTF-8")
    assert str(error) == "set: 1.tar: sample k7: txt: must be UTF-8"


def test_an_error_of_a_user_is_its_message_and_keeps_its_fields_between_processes():
    error = UserError("k", "must be at least 1", 0)
    same = pickle.loads(pickle.dumps(error))
    assert (same.field, same.rule, same.value) == ("k", "must be at least 1", 0)
    assert error.args == same.args == (str(error),)


def test_a_value_that_is_too_small_is_named():
    check_at_least(1, first=1, second=2.5)
    for minimum in (0, 1):
        with refusal_of("second"):
            check_at_least(minimum, first=minimum, second=minimum - 1)


def test_a_file_where_a_folder_is_needed_is_named(tmp_path):
    file = tmp_path / "cat.jpg"
    file.write_bytes(b"")
    for folder in (file, file / "x", file / "x" / "y"):
        with pytest.raises((FileExistsError, NotADirectoryError)) as error:
            folder.mkdir(parents=True, exist_ok=True)
        assert sentence(error.value) == f"{file}: must be a folder (got a file)"
    with pytest.raises(FileExistsError) as there:
        tmp_path.mkdir()
    assert sentence(there.value) == f"{tmp_path}: file exists"


def test_a_folder_where_a_file_is_needed_is_named(tmp_path):
    with pytest.raises(IsADirectoryError) as error:
        write_atomic(tmp_path, "text")
    assert sentence(error.value) == f"{tmp_path}: must be a file (got a folder)"
    with pytest.raises(IsADirectoryError) as error:
        tmp_path.read_bytes()
    assert sentence(error.value) == f"{tmp_path}: must be a file (got a folder)"
