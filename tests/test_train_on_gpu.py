"""The script that renders and trains in one go on a rented GPU: its whole path on the CPU, with tiny numbers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from densemarks_model import load_network

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "tools" / "train_on_gpu.sh"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="the script is for bash")


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, "OUT": ""}
    return subprocess.run(["bash", str(SCRIPT), *arguments], cwd=ROOT, capture_output=True, text=True, env=environment, timeout=280)


def test_the_dry_run_renders_trains_and_goes_on_from_its_checkpoint(tmp_path):
    stage = {"schedule": "open", "warm_up": 2, "image_size": 28, "unfrozen_blocks": 2, "synthetic_batch": 4}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"data": {"synthetic": "x"}, "stages": [stage], "run": {"tensorboard": False, "threads": 1}}))
    first = _run("--dry-run", "--out", str(tmp_path / "first"), "--config", str(config), "--steps", "3")
    assert first.returncode == 0, first.stdout[-1500:] + first.stderr[-1500:]
    checkpoint = tmp_path / "first" / "run" / "checkpoint.pt"
    assert torch.load(checkpoint, weights_only=True)["step"] == 3
    assert load_network(tmp_path / "first" / "run" / "weights.safetensors").network.config.layers == 2
    second = _run(
        "--dry-run", "--out", str(tmp_path / "second"), "--config", str(config), "--steps", "5", "--checkpoint", str(checkpoint),
        "--shards", str(tmp_path / "first" / "shards"), "--pictures", "0", "--finish", "2",
    )  # fmt: skip
    assert second.returncode == 0, second.stdout[-1500:] + second.stderr[-1500:]
    assert "resumed at step 3" in second.stdout
    state = torch.load(tmp_path / "second" / "run" / "checkpoint.pt", weights_only=True)
    assert (state["step"], state["passes"]) == (5, 20)
    assert (tmp_path / "second" / "run" / "finish-5" / "weights.safetensors").is_file()


def test_wrong_options_are_one_line():
    for arguments, message in ((("--out",), "needs a value"), (("--much", "1"), "no such option"), ((), "--out FOLDER is needed")):
        done = _run(*arguments)
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
    assert "--checkpoint FILE" in _run("--help").stdout
