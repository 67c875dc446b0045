"""Old and new engine versions, opened by the runtime, give the class maps that the newest gives."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastseg_exporters.convert.child import Converted
from fastseg_exporters.convert.exporter import Conversion, Recipe, Request, load_exporter
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.gate.record import describe_network, members, record
from fastseg_runtime.arrays.image import resize_bilinear
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import OutputSpec, numbered_classes
from fastseg_runtime.bundle.writer import write_bundle
from fastseg_targets.target import load_target
from torch import nn

from fastseg import Network, open_network
from fastseg.data import open_dataset
from fastseg.data.image_file import read_image

pytestmark = [
    pytest.mark.engines,
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the converter's own imports
    pytest.mark.filterwarnings("ignore:Warning. Enabling .experimental_preserve:UserWarning"),
]
ROOT = Path(__file__).parents[2]
NETWORK = "nano-synthetic"  # real weights, with large areas in their maps; nobody trains it anew
SIZES = ((480, 360), (1024, 512))
CLASSES = (2, 11, 19)
ONNX = ("cpu-fp32", "cpu-int8", "cpu-int8-weights")
TFLITE = ("android-fp32", "android-fp16", "android-int8")
INTEL = ("intel-bf16", "intel-int8")
TARGETS = {
    "onnxruntime": ONNX,
    "ai-edge-litert": TFLITE,
    "tflite-runtime": TFLITE[:2],
    "openvino": INTEL,
}
# Sums of 400 products in another order differ by about 1e-6 of logits that reach 20.
ROUNDING = 1e-4  # of a frame's largest logit: two classes that are closer may be told either way
MIN_AGREEMENT = 0.999  # with the newest, fraction of a frame's decided pixels; float arithmetic
# Below the newest's own agreement with PyTorch, as in the self-test; bf16 too.
INT8_TOLERANCE = 0.02


@dataclass(frozen=True, eq=False)
class Case:
    """A network of one size and number of classes, frames, and what PyTorch makes of them."""

    folder: Path
    request: Request
    names: tuple[str, ...]  # of the frames
    frames_NHW3: Array

    @functools.cache  # noqa: B019  (a few cases, as long as the tests)
    def bundle(self, targets: tuple[str, ...]) -> Path:
        """Return a bundle of all targets of a format."""
        path = self.folder / f"{targets[0]}.fastseg"
        files: dict[str, Path] = {}
        artifacts = []
        for name in targets:
            target = load_target(name)
            precision, folder = target.ladder[0], self.folder / name
            folder.mkdir()
            conversion = Conversion(self.request.conversion.recipe, target, precision)
            asked = Request(self.request.network, conversion)
            made = load_exporter(target.exporter)(asked, folder)
            converted = Converted(made, folder, 0.0, 0.0)
            own = members(target, converted)
            artifacts.append(record(conversion, converted, own))
            files |= own
        manifest = describe_network(self.request.network, "engines", OutputSpec(), created="")
        write_bundle(path, dataclasses.replace(manifest, artifacts=tuple(artifacts)), files)
        return path

    @functools.cache  # noqa: B019
    def run(self, targets: tuple[str, ...], python: str) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return the ids (N, H, W) of each target by an interpreter's engine, and its report."""
        frames, result = self.folder / "frames.npz", self.folder / "result.npz"
        np.savez(frames, frames=self.frames_NHW3)
        script = Path(__file__).with_name("run_frames.py")
        together = next(known for known in (ONNX, TFLITE, INTEL) if targets[0] in known)
        paths = map(str, (script, self.bundle(together), frames, *targets, result))
        done = subprocess.run(
            [python, *paths],
            env={**os.environ, "PYTHONPATH": str(ROOT / "runtime")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        with np.load(result) as arrays:
            return dict(arrays), json.loads(done.stdout)

    @functools.cache  # noqa: B019
    def pytorch(self) -> tuple[Array, Array]:
        """Return PyTorch's ids (N, H, W), and where its two largest logits differ, bool."""
        graph = self.request.network.graph("logits")
        ids, decided = [], []
        with torch.inference_mode():
            for frame_HW3 in self.frames_NHW3:
                logits_1Khw = graph(torch.from_numpy(frame_HW3)[None])
                best = graph.upsample(logits_1Khw).topk(2, dim=1)
                margin_HW = (best.values[:, 0] - best.values[:, 1])[0]
                decided.append((margin_HW > ROUNDING * logits_1Khw.abs().max()).numpy())
                ids.append(best.indices[0, 0].numpy())
        return np.stack(ids), np.stack(decided)


@pytest.fixture(scope="session", params=SIZES, ids=lambda size: "{}x{}".format(*size))
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    return request.param


@pytest.fixture(scope="session", params=CLASSES, ids=lambda count: f"{count} classes")
def case(
    request: pytest.FixtureRequest,
    size: tuple[int, int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Case:
    network = with_classes(open_network(NETWORK, size=size), request.param)
    camvid = os.environ.get("FASTSEG_CAMVID")
    calibration = Calibration(camvid and f"camvid:{camvid}", count=8)
    recipe = Recipe(NetworkSource(NETWORK), calibration)
    asked = Request(network, Conversion(recipe, load_target("cpu-fp32"), "fp32"))
    frames = frames_of(*size)
    folder = tmp_path_factory.mktemp("engines")
    return Case(folder, asked, tuple(frames), np.stack(list(frames.values())))


def with_classes(network: Network, count: int) -> Network:
    """Return the network with another number of classes, some of them weaker copies of its own."""
    (head,) = [m for m in network.model.modules() if isinstance(m, nn.Conv2d)][-1:]
    index = torch.arange(count)
    strength = 0.9 ** (index // head.out_channels)
    kept = index % head.out_channels
    assert head.bias is not None
    head.weight = nn.Parameter(head.weight[kept] * strength[:, None, None, None])
    head.bias = nn.Parameter(head.bias[kept] * strength)
    head.out_channels = count
    info = dataclasses.replace(network.info, classes=numbered_classes(count))
    return dataclasses.replace(network, info=info)


def frames_of(width: int, height: int) -> dict[str, Array]:
    """Return easy and hard frames, uint8 (H, W, 3) by name."""
    rng = np.random.default_rng(0)
    shape = (height, width, 3)
    rows, columns = np.indices(shape)[:2]
    frames = {f"uniform {value}": np.full(shape, value, np.uint8) for value in (0, 128, 200, 255)}
    frames["noise"] = rng.integers(0, 256, shape, np.uint8)
    frames["faint noise"] = rng.integers(120, 137, shape, np.uint8)
    for side in (1, 8, 64):
        board = ((rows // side + columns // side) % 2 * 255).astype(np.uint8)
        frames[f"checkered {side}"] = board
    for name, image_HW3 in real_frames().items():
        frames[name] = np.ascontiguousarray(resize_bilinear(image_HW3, width, height))
    return frames


def real_frames() -> dict[str, Array]:
    """Return real pictures of any size, parts of them that show one class, and overexposed ones."""
    frames: dict[str, Array] = {}
    if camvid := os.environ.get("FASTSEG_CAMVID"):
        test = open_dataset(f"camvid:{camvid}", "test")
        for index in range(0, len(test), 40):
            frames[f"CamVid {index}"] = test[index].image_HW3
        street = test[0].image_HW3
        frames["sky"], frames["road"] = street[:60, 200:280], street[300:, 200:280]
        frames["overexposed"] = np.clip(street.astype(int) * 4, 0, 255).astype(np.uint8)
    if clips := os.environ.get("FASTSEG_CLIPS"):
        for path in sorted((Path(clips) / "stills").glob("test*.jpg"))[:4]:
            frames[f"dashcam {path.stem}"] = read_image(path)
    return frames


def test_an_engine_gives_the_ids_of_the_newest_for_every_frame(
    engine: Any, engines: list[Any], case: Case
) -> None:
    targets = TARGETS[engine.package]
    ids, report = case.run(targets, str(engine.python()))
    newest, _ = case.run(targets, newest_python(engine.package, engines))
    assert report == {"versions": [engine.version], "errors": []}
    wrong = []
    for target, ids_NHW in ids.items():
        judge = int8_shortfall if target.endswith(("-int8", "-bf16")) else float_shortfall
        shortfalls = judge(ids_NHW, newest[target], *case.pytorch())
        print(f"{engine} {target}: worst frame {shortfalls.max():+.5f} of what it may differ")
        named = zip(case.names, shortfalls, strict=True)
        wrong += [f"{target}, {name}: {by:.5f}" for name, by in named if by > 0]
    assert not wrong


def newest_python(package: str, engines: list[Any]) -> str:
    """Return the interpreter with the newest version of a package: this one, if it has it."""
    if find_spec(package.replace("-", "_")) or package == "tflite-runtime":
        return sys.executable
    return str([engine for engine in engines if engine.package == package][-1].python())


def float_shortfall(ids_NHW: Array, newest: Array, pytorch: Array, decided: Array) -> Array:
    """Return by how much each frame agrees less with the newest than it must, fractions (N,)."""
    return MIN_AGREEMENT - ((ids_NHW == newest) | ~decided).mean((1, 2))


def int8_shortfall(ids_NHW: Array, newest: Array, pytorch: Array, decided: Array) -> Array:
    """Return by how much each frame agrees less with PyTorch than it must, fractions (N,)."""
    recorded = (newest == pytorch).mean((1, 2))
    return recorded - INT8_TOLERANCE - (ids_NHW == pytorch).mean((1, 2))


def test_the_newest_gives_pytorchs_ids_and_frames_of_a_single_class_are_among_them(
    case: Case,
) -> None:
    newest, report = case.run(ONNX, sys.executable)
    expected, decided = case.pytorch()
    assert report["errors"] == []
    assert np.mean((newest["cpu-fp32"] == expected)[decided]) >= MIN_AGREEMENT
    assert decided.mean() > 0.999
    assert any(ids_HW.min() == ids_HW.max() for ids_HW in expected)
