"""Every kind of damaged shard: the reason, the names in the message, and what is still read."""

from __future__ import annotations

import dataclasses
import io
import re
import struct
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from tests.support.images import announced_png, encode
from tests.support.shards import config, encoded, members, write_tar

from prolip.data import BatchLoader, CaptionConfig, CaptionSource, DataError, LoaderConfig

IMAGES = ("jpg", "png", "webp", "gif", "bmp")
BEFORE, AFTER = [f"a{index}" for index in range(6)], [f"b{index}" for index in range(6)]


class Damage(NamedTuple):
    """A sample that cannot be used."""

    members: list[tuple[str, bytes]]
    """All that it has, extensions first."""
    reason: str
    """Under which it is counted."""
    message: str
    """What is said of it."""


def noise(kind: str, **options: Any) -> bytes:
    """An image whose bytes cannot be guessed from those before."""
    pixels = np.random.default_rng(1).integers(0, 256, (90, 110, 3), dtype=np.uint8)
    return encode(Image.fromarray(pixels), kind, **options)


ENCODED = {
    "jpg": noise("jpeg"),
    "progressive.jpg": noise("jpeg", progressive=True),
    "png": noise("png"),
    "webp": noise("webp"),
    "lossless.webp": noise("webp", lossless=True),
    "gif": noise("gif"),
    "bmp": noise("bmp"),
}


def pillow_reads(data: bytes) -> bool:
    try:
        Image.open(io.BytesIO(data)).convert("RGB")
    except OSError:
        return False
    return True


def giants() -> dict[str, bytes]:
    """Small files that say that they are 50,000 pixels wide and high."""
    side = 50_000
    jpeg = bytearray(ENCODED["jpg"])
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    gif = bytearray(ENCODED["gif"])
    gif[6:10] = struct.pack("<HH", side, side)
    bmp = bytearray(ENCODED["bmp"])
    bmp[18:26] = struct.pack("<ii", side, side)
    return {
        "png": announced_png(side, side),
        "jpg": bytes(jpeg),
        "gif": bytes(gif),
        "bmp": bytes(bmp),
    }


def captioned(extension: str, image: bytes) -> list[tuple[str, bytes]]:
    return [(extension.rsplit(".", maxsplit=1)[-1], image), ("txt", b"a caption"), ("json", b"{}")]


DECODE = "cannot decode its image: "
KINDS = {
    **{
        f"truncated {name}": Damage(captioned(name, data[: len(data) // 2]), "decode", DECODE)
        for name, data in ENCODED.items()
    },
    **{
        f"no {name}": Damage(captioned(name, bytes(40) + data[40:]), "decode", f"{DECODE}not a JPEG, PNG")
        for name, data in ENCODED.items()
    },
    **{f"0 bytes of {name}": Damage(captioned(name, b""), "decode", r"not a JPEG, .* \(0 bytes\)") for name in ENCODED},
    **{
        f"giant {name}": Damage(
            captioned(name, data), "decode", f"{DECODE}50000 x 50000 pixels are more than the limit"
        )
        for name, data in giants().items()
    },
    "changed png": Damage(captioned("png", ENCODED["png"].replace(b"IDAT", b"IDAT\7", 1)), "decode", f"{DECODE}PNG: "),
    "no image": Damage([("txt", b"a caption")], "no_image", "none of its members is a jpg"),
    "no caption": Damage([("png", encoded((1, 2, 3)))], "caption", "no caption: it has no .txt"),
    "caption of other bytes": Damage([("png", encoded((1, 2, 3))), ("txt", b"caf\xe9")], "caption", "not UTF-8"),
    "long caption": Damage([("png", encoded((1, 2, 3))), ("txt", b"x" * 1001)], "caption", "1001 bytes, more than"),
    "two captions": Damage([("png", b""), ("txt", b"a"), ("TXT", b"b")], "duplicate", 'the extension "txt"'),
    "large members": Damage(
        captioned("png", bytes(2 << 20)),
        "read",
        "2097161 bytes, 2097152 of them .png, more than max_member_bytes = 1048576 allows",
    ),
}


BASE: dict[str, Any] = {
    "last_batch": "keep",
    "shuffle_window": 0,
    "max_bad_fraction": 1.0,
    "max_member_bytes": 1 << 20,
    "max_caption_bytes": 1000,
}


def of_damage(path: Path, damage: Damage, **changes: Any) -> LoaderConfig:
    """A shard with a bad sample between good ones."""
    good = [[entry for key in keys for entry in members(key, (1, 2, 3))] for keys in (BEFORE, AFTER)]
    write_tar(path, [*good[0], *((f"bad.{extension}", data) for extension, data in damage.members), *good[1]])
    return config(str(path), **{**BASE, **changes})


@pytest.mark.parametrize("damage", KINDS.values(), ids=KINDS)
def test_a_bad_sample_is_counted_named_and_skipped(tmp_path: Path, damage: Damage) -> None:
    """One of 13: counted under its reason and named with shard and key; the others are as they were."""
    path = tmp_path / "0.tar"
    evaluation = BatchLoader(of_damage(path, damage))
    assert [key for batch in evaluation for key in batch.keys] == BEFORE + AFTER
    stats = evaluation.stats()
    assert (stats.bad, stats.samples) == ({damage.reason: 1}, 13)
    [line] = stats.bad_samples
    assert line.startswith(f"shard {path}, sample bad: "), line
    assert re.search(damage.message, line), line
    # Training puts another sample in its place.
    training = BatchLoader(of_damage(path, damage, last_batch="drop", num_epochs=2))
    batches = [batch.keys for batch in training]
    assert [len(keys) for keys in batches] == [4] * 6
    assert {key for keys in batches for key in keys} <= {*BEFORE, *AFTER}
    assert training.stats().bad.keys() == {damage.reason}
    # Where none may be bad, the batch before its own is the last.
    strict = iter(BatchLoader(of_damage(path, damage, max_bad_fraction=0.0)))
    assert next(strict).keys == BEFORE[:4]
    counted = rf"1 of 8 samples .* \({damage.reason}: 1\); the first: shard {path}, sample bad: "
    with pytest.raises(DataError, match=counted):
        next(strict)


def test_pillow_cannot_read_the_bad_images_either() -> None:
    for name, damage in KINDS.items():
        [image] = [data for extension, data in damage.members if extension in IMAGES] or [b""]
        if damage.reason == "decode" and "giant" not in name:
            assert not pillow_reads(image), name


def test_an_image_above_pillows_warning_limit_is_a_bad_sample(tmp_path: Path) -> None:
    side = 9460
    assert (side - 1) ** 2 < LoaderConfig.max_pixels == Image.MAX_IMAGE_PIXELS < side**2
    damage = Damage(captioned("png", announced_png(side, side)), "decode", "")
    loader = BatchLoader(of_damage(tmp_path / "0.tar", damage))
    assert [key for batch in loader for key in batch.keys] == BEFORE + AFTER
    assert "9460 x 9460 pixels are more than the limit of 89478485" in loader.stats().bad_samples[0]


def test_a_key_with_line_breaks_and_terminal_codes_is_escaped_in_messages(tmp_path: Path) -> None:
    path = tmp_path / "0\x1b[7m.tar"
    write_tar(path, [("a\nb\x1b[2J\u202e猫.png", b"no image"), ("a\nb\x1b[2J\u202e猫.txt", b"text")])
    loader = BatchLoader(config(str(path), last_batch="keep", max_bad_fraction=1.0))
    assert list(loader) == []
    [line] = loader.stats().bad_samples
    assert r"0\u{1b}[7m.tar, sample a\nb\u{1b}[2J\u{202e}猫: cannot decode" in line
    strict = BatchLoader(config(str(path), last_batch="keep", max_bad_fraction=0.0))
    with pytest.raises(DataError) as error:
        list(strict)
    assert str(error.value).isprintable()
    # The batch itself has the key as it is.
    write_tar(path, members("a\nb", (1, 2, 3)))
    assert [batch.keys for batch in BatchLoader(config(str(path), last_batch="keep"))] == [["a\nb"]]


def test_missing_or_invalid_json_captions_are_bad_samples(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    captions = (CaptionConfig(sources=(CaptionSource(key="levels.name"),)),)
    for data, message in [
        (b"", "cannot parse its json"),
        (b"{", "cannot parse its json"),
        (b"{}", 'no caption at "levels.name"'),
        (b'{"levels": {"name": 7}}', 'no caption at "levels.name"'),
        (None, "no caption: it has no .json"),
    ]:
        extensions = [("png", encoded((1, 2, 3))), *([] if data is None else [("json", data)])]
        loader = BatchLoader(of_damage(path, Damage(extensions, "caption", message), captions=captions))
        assert [key for batch in loader for key in batch.keys] == BEFORE + AFTER
        assert loader.stats().bad == {"caption": 1}
        assert message in loader.stats().bad_samples[0]


def test_an_empty_caption_is_a_caption(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    loader = BatchLoader(of_damage(path, Damage([("png", encoded((1, 2, 3))), ("txt", b"")], "", "")))
    batches = list(loader)
    assert [key for batch in batches for key in batch.keys] == [*BEFORE, "bad", *AFTER]
    assert [len(batch.token_ids[0, 2].nonzero()[0]) for batch in batches[1:2]] == [2]
    assert loader.stats().bad == {}


# ---- shards ---------------------------------------------------------------------------------------------------------


def archive(keys: list[str]) -> bytes:
    """An archive of samples of three members, each of two blocks; without its end."""
    with io.BytesIO() as stream, tarfile.open(fileobj=stream, mode="w") as out:
        for name, data in (entry for key in keys for entry in members(key, (1, 2, 3))):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
        return stream.getvalue()


SAMPLE = 3 * 1024


def header(size: int, *, binary: bool) -> bytes:
    """A member's header that announces so many bytes."""
    info = tarfile.TarInfo("a2.png")
    info.size = size
    block = info.tobuf(tarfile.GNU_FORMAT if binary else tarfile.USTAR_FORMAT)
    assert len(block) == 512
    assert (block[124] == 0x80) == binary
    return block


def records(size: int) -> bytes:
    """A member's headers that announce so many bytes in a PAX record."""
    info = tarfile.TarInfo("a2.png")
    info.pax_headers = {"size": str(size)}
    return info.tobuf(tarfile.PAX_FORMAT)


def changed(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


WHOLE = archive(BEFORE)
HEAD = WHOLE[: 2 * SAMPLE]
# A shard whose third sample is damaged, and what is said of it.
SHARDS = {
    "cut in an image": (WHOLE[: len(HEAD) + 530], 'the archive is truncated: member "a2.png" of .* bytes'),
    "cut behind a sample": (HEAD, "there is nothing at byte 6144, not even the zeros that end an archive"),
    "cut in a header": (WHOLE[: len(HEAD) + 100], "the archive is truncated: a header"),
    "changed header": (changed(WHOLE, len(HEAD) + 3), "damaged header: the checksum is"),
    "changed checksum": (changed(WHOLE, len(HEAD) + 150), "damaged header: "),
    "rubbish": (HEAD + b"<html>" * 1000, "damaged header: "),
    "eight gigabytes": (HEAD + header(8**11 - 1, binary=False) + WHOLE, 'member "a2.png" of 8589934591 bytes'),
    "terabytes": (HEAD + header(9 << 40, binary=True) + WHOLE, f'member "a2.png" of {9 << 40} bytes'),
    "the most bytes": (HEAD + header(2**63, binary=True) + WHOLE, f'member "a2.png" of {2**63} bytes'),
    "terabytes by PAX": (HEAD + records(9 << 40) + WHOLE, f'member "a2.png" of {9 << 40} bytes'),
}


@pytest.mark.parametrize("name", SHARDS)
def test_a_damaged_shard_is_used_up_to_the_damage(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Used up to the damage, with a warning; the rest is one bad sample, and the next shard goes on."""
    data, message = SHARDS[name]
    place = len(HEAD) + 1024 * ("PAX" in name)
    (tmp_path / "0.tar").write_bytes(data)
    write_tar(tmp_path / "1.tar", [entry for key in AFTER for entry in members(key, (1, 2, 3))])
    shards = config(
        str(tmp_path / "{0..1}.tar"), last_batch="keep", shuffle_window=0, max_bad_fraction=1.0, batch_size=2
    )
    with caplog.at_level("WARNING", "prolip.data"):
        loader = BatchLoader(shards)
    [warning] = caplog.messages
    assert re.search(f"0.tar, byte {place}: .*{message}.*; the samples before are used", warning), warning
    assert [key for batch in loader for key in batch.keys] == BEFORE[:2] + AFTER
    stats = loader.stats()
    assert (stats.bad, stats.samples) == ({"archive": 1}, 9)
    [line] = stats.bad_samples
    assert re.search(f"^shard {tmp_path}/0.tar, sample no. 2: .*{message}", line), line
    assert "beyond the file" not in line or f" beyond the file's {len(data)} bytes" in line
    strict = iter(BatchLoader(dataclasses.replace(shards, max_bad_fraction=0.0)))
    assert next(strict).keys == BEFORE[:2]
    with pytest.raises(DataError, match=r"\(archive: 1\); the first: shard .*0.tar, sample no. 2: "):
        next(strict)


@pytest.mark.parametrize("last_batch", ["keep", "drop"])
def test_a_deleted_shard_gives_bad_samples(tmp_path: Path, last_batch: str) -> None:
    for shard, keys in enumerate([BEFORE, AFTER]):
        write_tar(tmp_path / f"{shard}.tar", [entry for key in keys for entry in members(key, (1, 2, 3))])
    shards = config(
        str(tmp_path / "{0..1}.tar"),
        last_batch=last_batch,
        shuffle_window=0,
        batch_size=2,
        num_threads=1,
        prefetch_batches=1,
        max_bad_fraction=0.9,
    )
    kept = (tmp_path / "1.tar").read_bytes()
    for choice in ("raise", "skip"):
        (tmp_path / "1.tar").write_bytes(kept)
        loader = BatchLoader(dataclasses.replace(shards, on_missing_shard=choice))
        (tmp_path / "1.tar").unlink()
        batches = iter(loader)
        assert [next(batches).keys for _ in range(3)] == [BEFORE[:2], BEFORE[2:4], BEFORE[4:]]
        if choice == "raise":
            with pytest.raises(DataError, match=r"shard .*1\.tar: cannot open: No such file"):
                next(batches)
        elif last_batch == "keep":
            assert list(batches) == []
            stats = loader.stats()
            assert (stats.bad, stats.samples) == ({"read": 6}, 12)
            assert re.search(r"1\.tar, sample no\. 0: cannot open its shard", stats.bad_samples[0])
        else:
            # The whole epoch is one window, so that others can take their places.
            rest = [batch.keys for batch in batches]
            assert [len(keys) for keys in rest] == [2] * 3
            assert {key for keys in rest for key in keys} <= set(BEFORE)
            assert set(loader.stats().bad) == {"read"}


def test_a_shard_truncated_while_it_is_read_gives_bad_samples(tmp_path: Path) -> None:
    """Its file is open, so that nothing is missing: what lies behind the cut is bad, sample by sample."""
    path = tmp_path / "0.tar"
    path.write_bytes(archive([f"a{index}" for index in range(40)]) + bytes(1024))
    shards = config(
        str(path),
        last_batch="keep",
        shuffle_window=0,
        batch_size=2,
        num_threads=1,
        prefetch_batches=1,
        max_bad_fraction=1.0,
    )
    loader = BatchLoader(shards)
    batches = iter(loader)
    keys = next(batches).keys
    with path.open("r+b") as file:
        file.truncate(20 * SAMPLE + 700)
    keys += [key for batch in batches for key in batch.keys]
    assert keys == [f"a{index}" for index in range(20)]
    stats = loader.stats()
    assert sum(stats.bad.values()) == 20
    assert stats.bad == {"archive": 20}
    assert "0.tar, sample a20: the archive is truncated" in stats.bad_samples[0]
