"""The runtime's wheel in every Python that it promises and that is here.

Interpreters are found on PATH as python3.8 and so on, and where pyenv puts them; FASTSEG_PYTHONS
names more, as "3.9=/opt/py39/bin/python3.9 3.14=/opt/py314/bin/python3.14".
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doubles.tiny_bundle import full_plan

ROOT = Path(__file__).parents[2]
WHEELS = ["numpy", "onnxruntime", "opencv-python-headless"]
CODE = """
import json, sys, threading
import numpy as np
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.frames.video import FrameSource, VideoWriter

writer = VideoWriter("drive.mp4", 10)
for index in range(8):
    writer.write(np.full((32, 48, 3), 30 * index, np.uint8), index / 4)
writer.finish()
with RealtimeSegmentation(sys.argv[1]) as seg:
    seg.infer_video("drive.mp4", "out.mkv", stop=threading.Event())
    streamed = [result.time_s for result in seg.stream("out.mkv")]
    backend = seg.info.backend
python = "%d.%d" % sys.version_info[:2]
print(json.dumps({"python": python, "times_s": streamed, "backend": backend}))
"""


def interpreter(version: str) -> str:
    named = dict(entry.split("=", 1) for entry in os.environ.get("FASTSEG_PYTHONS", "").split())
    pyenv = Path.home() / ".pyenv/versions"
    chosen = sorted(map(str, pyenv.glob(f"{version}.*/bin/python{version}")))
    for found in (named.get(version), *chosen, shutil.which(f"python{version}")):
        # What pyenv leaves on PATH of an interpreter that is not chosen runs nothing.
        if found and not subprocess.run([found, "-c", ""], capture_output=True).returncode:
            return found
    pytest.skip(f"no python{version} that runs on PATH, of pyenv or in FASTSEG_PYTHONS")


def run(python: str, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder), "FASTSEG_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [python, *arguments], capture_output=True, text=True, cwd=folder, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.engines
@pytest.mark.parametrize("version", ["3.8", "3.9", "3.13", "3.14"])
def test_the_wheel_runs_a_bundle_a_video_and_its_command(version: str, tmp_path: Path) -> None:
    python = interpreter(version)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT / "runtime", check=True, capture_output=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(tmp_path), "--no-compile"]
    wheels = ["--python-version", version, "--only-binary=:all:", *WHEELS]
    fetched = subprocess.run([*pip, *wheels], capture_output=True, text=True)
    if fetched.returncode:
        pytest.skip(f"numpy and ONNX Runtime for Python {version} cannot be had: {fetched.stderr}")
    (wheel,) = tmp_path.glob("fastseg_runtime*.whl")
    subprocess.run(
        [*pip, "--no-deps", "--python-version", "3.8", "--only-binary=:all:", str(wheel)],
        check=True,
    )
    bundle = str(full_plan().write(tmp_path / "tiny.fastseg"))
    report = json.loads(run(python, tmp_path, "-c", CODE, bundle))
    assert (report["python"], report["backend"]) == (version, "onnxruntime")
    assert report["times_s"] == pytest.approx([index / 4 for index in range(8)], abs=1e-3)
    command = ("-m", "fastseg_runtime.cli.main", bundle)
    shown = json.loads(run(python, tmp_path, *command, "drive.mp4", "-o", "o.mp4", "--json"))
    assert shown["inputs"][0]["frames"] == 8
    assert "artifact" in run(python, tmp_path, *command, "--verify", "--json")
