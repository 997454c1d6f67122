"""`python -m tests.bench.targets` at a toy size, beside the decoders that every environment has."""

import numpy as np
import pytest
from PIL import Image
from tests.bench import processors, targets


def test_loader_and_decoder_are_compared_with_their_targets(tmp_path, monkeypatch, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "0.jpg")
    monkeypatch.setattr(targets, "OTHERS", {name: targets.OTHERS[name] for name in (targets.LIBJPEG, "pillow")})
    sizes = ["--threads", "1", "--repeats", "1", "--num_images", "2", "--decode_images", "2", "--batch_size", "8"]
    targets.main(["--images", str(tmp_path), "--levels", "portable", *sizes])
    lines = capsys.readouterr().out.splitlines()
    native = [targets.OURS] * 2
    assert [line.split(",")[0] for line in lines[1:14]] == ["loader"] * 2 + native + ["decode"] * 9
    assert sum("(100.0%)" in line for line in lines) == 6, "the same pixels as Pillow's"


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")  # torchvision's, as transformers calls it
def test_processors_of_transformers_are_compared_with_ours(tmp_path, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "0.jpg")
    processors.main(["--images", str(tmp_path), "--repeats", "1", "--num_images", "1"])
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == 6 * len(processors.PROCESSORS)
    assert {line.split()[-2] for line in lines} == {"0.000%"}, "share of our values that differ"


@pytest.mark.parametrize(
    ("rates", "verdict"),
    [((3, 2), "met"), ((3, 3, 1), "met by median"), ((1, 1, 3), "missed by median"), ((1, 1), "missed")],
)
def test_a_target_is_met_in_all_rounds_or_by_the_median(rates, verdict):
    ours, theirs = ([targets.Turn(rate, 1.0) for rate in side] for side in (rates, [1.0] * len(rates)))
    assert targets.row("", ours, "", theirs, 1.5)[-2] == verdict
