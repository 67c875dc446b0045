"""The runtime with real aarch64 wheels on an emulated board: the same class maps as here."""

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from fastseg_runtime import RealtimeSegmentation, open_bundle

from fastseg import CheckpointInfo, FastSegNet, save_checkpoint
from tests.boards.arm64_tree import Arm64Tree, download, why_not
from tests.doubles.tiny_bundle import CLASSES, HEIGHT, WIDTH, empty_plan, noise, strongest_channel

pytestmark = pytest.mark.arm64
RUNTIME = Path(__file__).parents[2] / "runtime"
RUN_SCENES = """
import sys, numpy
from fastseg_runtime import RealtimeSegmentation, open_bundle
with open_bundle(sys.argv[1]) as bundle:
    scenes = bundle.selftests()
    targets = [artifact.target for artifact in bundle.manifest.artifacts]
maps = {}
for target in targets:
    with RealtimeSegmentation(sys.argv[1], target=target) as session:
        maps[target] = numpy.stack([session.infer(image) for image, _ in scenes])
numpy.savez(sys.argv[2], **maps)
"""


def pinned(*names: str) -> list[str]:
    """The versions that run here."""
    return [f"{name}=={metadata.version(name)}" for name in names]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a board gets without a network: our wheel, and numpy's for aarch64."""
    folder = tmp_path_factory.mktemp("wheels")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=RUNTIME, check=True, capture_output=True)
    download(folder, *pinned("numpy"))
    return folder


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Arm64Tree:
    """A bare arm64 tree with the runtime installed from those wheels alone."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    tree = Arm64Tree(tmp_path_factory.mktemp("board") / "root")
    tree.install("fastseg-runtime", offline=wheels)
    return tree


@pytest.fixture(scope="module")
def board_with_engines(board: Arm64Tree) -> Arm64Tree:
    board.install(*pinned("onnxruntime", "ai-edge-litert", "numpy"))
    return board


def same_class_maps(board: Arm64Tree, bundle: Path) -> dict[str, float]:
    """Fraction of equal pixels of each target, there and here."""
    shutil.copy(bundle, board.root / "tmp/net.fastseg")
    result = board.python("-c", RUN_SCENES, "/tmp/net.fastseg", "/tmp/maps.npz")
    assert result.returncode == 0, result.stderr
    with np.load(board.root / "tmp/maps.npz", allow_pickle=False) as there:
        maps = {target: there[target] for target in there.files}
    with open_bundle(bundle) as opened:
        scenes = opened.selftests()
    equal = {}
    for target, there_NHW in maps.items():
        with RealtimeSegmentation(bundle, target=target) as session:
            here_NHW = np.stack([session.infer(image) for image, _ in scenes])
        equal[target] = float((there_NHW == here_NHW).mean())
    return equal


def test_the_runtime_installs_offline_and_says_what_an_engine_would_need(
    board: Arm64Tree,
) -> None:
    result = board.python("-m", "fastseg_runtime.cli.main", "--doctor")
    assert result.returncode == 0, result.stderr
    assert "Linux aarch64" in result.stdout
    assert "onnxruntime is not installed; to add it: pip install onnxruntime" in result.stdout


def test_a_network_gives_the_same_class_maps_with_every_engine(
    board_with_engines: Arm64Tree, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    info = CheckpointInfo("nano", CLASSES, width=128, height=64)
    save_checkpoint(tmp_path / "net.safetensors", FastSegNet(len(CLASSES), "nano").eval(), info)
    command = [str(Path(sys.executable).with_name("fastseg-export")), "net.safetensors"]
    targets = ["cpu-fp32", "cpu-int8", "raspberrypi-int8"]
    command += [*(f"--target={target}" for target in targets), "-o", "net.fastseg"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    equal = same_class_maps(board_with_engines, tmp_path / "net.fastseg")
    assert set(equal) == set(targets)
    # Float sums differ in their last bits: two classes that are as likely may change places.
    assert min(equal.values()) >= 0.999


@pytest.mark.parametrize("image", ["uint8", "int8"])
def test_a_network_gives_the_same_class_maps_with_litert(
    board_with_engines: Arm64Tree, tmp_path: Path, image: str
) -> None:
    tiny_tflite = pytest.importorskip("tests.doubles.tiny_tflite")
    frame = noise()
    plan = empty_plan().with_scene(frame, strongest_channel(frame))
    plan = plan.with_artifact(
        "raspberrypi",
        tiny_tflite.argmax_tflite(WIDTH, HEIGHT, image),
        "tflite",
        requires={"backend": "litert"},
        io={"image": f"{image} NHWC", "classes": "uint8"},
    )
    equal = same_class_maps(board_with_engines, plan.write(tmp_path / "tiny.fastseg"))
    assert equal == {"raspberrypi": 1.0}
