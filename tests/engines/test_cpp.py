"""The C++ example of ONNX Runtime with the C library of each version's wheel, and its Python."""

import os
import shutil
import subprocess
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from fastseg_exporters import ModelOptimizer
from fastseg_runtime.bundle.contract import write_contract
from fastseg_runtime.bundle.manifest import ClassInfo, InputSpec
from fastseg_runtime.bundle.reader import open_bundle
from fastseg_runtime.frames.video import FrameSource

from fastseg.checkpoint import load_checkpoint
from tests.doubles.tiny_bundle import empty_plan
from tests.engines.conftest import ROOT, Engine

pytestmark = pytest.mark.engines
SIZE, TARGET, FRAMES = (512, 256), "cpu-fp32", 8


def c_library(engine: Engine) -> Path:
    if engine.package != "onnxruntime":
        pytest.skip("another engine")
    folder = engine.python().parents[1]
    found = list(folder.glob("lib/python*/site-packages/onnxruntime/capi/libonnxruntime.so.*"))
    if not found:  # those before 1.19 have it inside of Python's module, without its door
        pytest.skip(f"the wheel of {engine} has no C library")
    return found[0]


def test_the_cpp_example_gives_the_ids_of_the_same_version_in_python(
    engine: Engine, tmp_path: Path
) -> None:
    library = c_library(engine)
    if shutil.which("g++") is None or "FASTSEG_CLIPS" not in os.environ:
        pytest.skip("needs g++ and FASTSEG_CLIPS")
    network, info = load_checkpoint(ROOT / "fastseg/weights/nano-camvid.safetensors")
    content = ModelOptimizer(network, SIZE).export_to_onnx(tmp_path / "nano.onnx").read_bytes()
    classes = [ClassInfo(entry.name, entry.color) for entry in info.classes]
    plan = empty_plan(classes=classes, input=InputSpec(*SIZE, resize="letterbox"))
    bundle_file = plan.with_artifact(TARGET, content).write(tmp_path / "nano.fastseg")
    with open_bundle(bundle_file) as bundle:
        bundle.extract(TARGET, tmp_path / "model")
        write_contract(bundle.manifest, bundle.artifact(TARGET), tmp_path / "model")
    clip = Path(os.environ["FASTSEG_CLIPS"], "vehicle_test_1280x720.mp4")
    frames_NHW3 = np.stack(list(islice(FrameSource(str(clip)), FRAMES)))
    np.savez(tmp_path / "frames.npz", frames=frames_NHW3)

    script = [engine.python(), "-P", Path(__file__).with_name("run_frames.py"), bundle_file]
    subprocess.run(
        [*script, tmp_path / "frames.npz", TARGET, tmp_path / "ids.npz"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "runtime")},
        check=True,
        timeout=300,
    )
    source, program = ROOT / "runtime/cpp/examples/onnxruntime.cpp", tmp_path / "example"
    subprocess.run(
        ["g++", "-std=c++17", "-O2", source, "-o", program, "-ldl"], check=True, timeout=300
    )
    head = b"P6\n%d %d\n255\n" % frames_NHW3.shape[2:0:-1]
    done = subprocess.run(
        [program, tmp_path / "model", "ids", library, "1"],
        input=b"".join(head + frame_HW3.tobytes() for frame_HW3 in frames_NHW3),
        capture_output=True,
        check=True,
        timeout=300,
    )
    expected_NHW = np.load(tmp_path / "ids.npz")[TARGET]
    assert len(np.unique(expected_NHW)) > 2
    head = head.replace(b"P6", b"P5")
    assert done.stdout == b"".join(head + ids_HW.tobytes() for ids_HW in expected_NHW)
