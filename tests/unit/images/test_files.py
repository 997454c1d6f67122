"""Files that an attacker wrote: they are bad images, and end neither the process nor its patience."""

import io
import os
import struct
import zlib

import pytest
from PIL import Image, features
from tests.support.refusals import refusal_of

from prolip.build.images import read_image
from prolip.data import DataError
from prolip.errors import UserError
from prolip.images.files import find_images, open_image
from prolip.images.preprocess import Preprocess
from prolip.store.file_locks import lock_file


def png(width, height):
    """A black image, of a few bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"\0" * ((width + 1) * height), 9)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("resize", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("size", [(4_000_000, 1), (1, 4_000_000)])
@pytest.mark.timeout(60)
def test_an_image_of_one_row_or_column_is_prepared(resize, size):
    assert Preprocess(size=224, resize=resize)(png(*size)).shape == (3, 224, 224)


def test_a_folder_that_many_links_lead_to_is_searched_once(tmp_path):
    above = tmp_path
    for _ in range(40):  # 2^40 paths
        below = above / "real"
        below.mkdir()
        (above / "link").symlink_to(below)
        above = below
    (above / "a.jpg").touch()
    assert find_images(tmp_path) == [above / "a.jpg"]


@pytest.mark.timeout(30)
def test_pipes_devices_and_pictures_of_text_are_no_images(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for kind in b"P3", b"P6":  # Pillow takes minutes
        name = f"{kind.decode()}.ppm"
        (tmp_path / name).write_bytes(kind + b"\n" + b"# comment\n" * 1000 + b"1 1 255\n1 2 3\n")
    for name in ("pipe.jpg", "zero.png", "P3.ppm", "P6.ppm"):
        with pytest.raises((OSError, ValueError)):
            read_image(tmp_path / name, None)
        with pytest.raises((UserError, DataError)):
            Preprocess(size=8)(tmp_path / name)


def test_pictures_of_numbers_are_images():
    image = Image.effect_noise((5, 4), 50)
    for mode in ("1", "L", "RGB"):
        file = io.BytesIO()
        image.convert(mode).save(file, "PPM")
        data = file.getvalue()
        for written in (data, data[:3] + b"# by hand\n" + data[3:]):
            assert open_image(written).convert("RGB") == image.convert(mode).convert("RGB")


@pytest.mark.parametrize("error", [RuntimeError, TypeError, KeyError, AssertionError, MemoryError])
def test_whatever_a_decoder_raises_the_image_is_bad(error, monkeypatch, tmp_path):
    def raises(*_):
        raise error

    path = tmp_path / "a.gif"
    Image.effect_noise((5, 4), 50).save(path)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", raises)
    with pytest.raises(DataError):
        Preprocess(size=8)(path)
    with pytest.raises(ValueError, match=error.__name__):
        read_image(path, None)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_a_damaged_avif_is_a_bad_image():
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(file, "AVIF")
    data, refused = file.getvalue(), 0
    for start in range(0, len(data) - 64, len(data) // 40):
        try:
            Preprocess(size=8)(data[:start] + bytes(64) + data[start + 64 :])
        except DataError:
            refused += 1
    assert refused


def test_a_lock_is_not_written_through_a_link(tmp_path):
    (tmp_path / "theirs").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "theirs")
    with refusal_of(str(tmp_path / "lock")):
        lock_file(tmp_path / "lock")
    os.mkfifo(tmp_path / "pipe")
    with refusal_of(str(tmp_path / "pipe")):
        lock_file(tmp_path / "pipe")
    assert (tmp_path / "theirs").read_text() == "precious"
