import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from fastseg import load_checkpoint
from tests.doubles.fastseg_run import running

DATA = "synthetic:size=96x64,train=12,val=5"
OPTIONS = ["--data", DATA, "--model", "nano", "--crop", "64x64", "--batch", "4", "--lr", "0.001"]


def start(
    folder: Path, processes: int, *arguments: str, stderr: int | None = None
) -> AbstractContextManager[subprocess.Popen[str]]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *launcher, "-m", "fastseg_training", *OPTIONS, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    pipes = {"stdout": subprocess.PIPE, "stderr": stderr}
    return running(command, 400, cwd=folder, env=environment, **pipes)


def last_entry(run: Path) -> dict[str, Any]:
    entry: dict[str, Any] = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    return entry


@pytest.mark.slow
def test_two_processes_train_one_network_like_one_process(tmp_path: Path) -> None:
    outputs = {}
    for processes in (1, 2):
        name = f"by-{processes}"
        with start(tmp_path, processes, "--epochs", "4", "--name", name, "--json") as process:
            outputs[processes], _ = process.communicate(timeout=400)
        assert process.returncode == 0
    scores = {processes: json.loads(out) for processes, out in outputs.items()}
    assert scores[2]["images"] == scores[1]["images"] == 5
    runs = [tmp_path / "runs" / name for name in ("by-1", "by-2")]
    first, second = (last_entry(run) for run in runs)
    assert first.keys() == second.keys()
    assert first["step"] == second["step"] == 12
    # Batch norm sees each process's part of a batch alone, so the losses are close, not equal.
    assert second["loss"] == pytest.approx(first["loss"], rel=0.1)
    assert {path.name for path in runs[0].iterdir()} == {path.name for path in runs[1].iterdir()}
    model, _ = load_checkpoint(runs[1] / "model.safetensors")
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.slow
def test_ctrl_c_stops_all_processes_at_the_same_step_and_saves(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "x"
    asked = ("--epochs", "10000", "--name", "x")
    with start(tmp_path, 2, *asked, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 200
        while not (run / "metrics.jsonl").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=100)
    steps = re.findall(r"stopped at step (\d+)", said)
    assert set(steps) == {str(torch.load(run / "resume.pt", weights_only=True)["step"])}, said
    assert not list(run.glob("*.part"))


@pytest.mark.slow
def test_a_network_of_ones_own_may_have_parts_that_its_output_does_not_use(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n"
        "        self.conv = nn.Conv2d(3, num_classes, 1)\n"
        "        self.fc = nn.Linear(3, 1000)\n"
        "    def forward(self, x):\n"
        "        return self.conv(x)\n"
    )
    asked = ("--model", "nets:Net", "--epochs", "1", "--name", "own")
    with start(tmp_path, 2, *asked, stderr=subprocess.PIPE) as process:
        _, said = process.communicate(timeout=400)
    assert process.returncode == 0, said
