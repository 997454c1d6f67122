"""open_clip's own command trains on our loader, and resumes."""

import json
import sys

import pytest
from tests.support import forked

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49_408, "width": 32, "heads": 2, "layers": 1},
}
SCRIPT = """
import sys
import open_clip
from prolip.interop.open_clip import main
open_clip.add_model_config("prolip-test-tiny.json")
assert main([*sys.argv[1:], *"--name run --epochs 1".split()]) == 0
assert main([*sys.argv[1:], *"--name more --epochs 2 --resume run/checkpoints/epoch_1.pt".split()]) == 0
"""


def test_open_clips_command_trains_and_resumes(folder, tmp_path):
    """In a process of its own, for open_clip's command sets up logging for good."""
    pytest.importorskip("pandas", reason="open_clip's command needs open_clip_torch[training]")
    (tmp_path / "prolip-test-tiny.json").write_text(json.dumps(TINY))
    words = (
        f"--model prolip-test-tiny --train-data {folder}/000.tar --dataset-type webdataset --batch-size 8 --workers 2"
    )
    words += " --precision fp32 --device cpu --warmup 1 --logs . --log-every-n-steps 1 --save-most-recent"
    done = forked.run([sys.executable, "-c", SCRIPT, *words.split()], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "more" / "checkpoints" / "epoch_2.pt").exists()
    assert "Train Epoch: 0" not in (tmp_path / "more" / "out.log").read_text()
