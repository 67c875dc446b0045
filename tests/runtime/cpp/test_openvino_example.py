"""The C++ example of OpenVINO, built as its page says, against Python on real frames."""

import os
import shutil
import subprocess
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import numpy as np
import pytest
from fastseg_exporters import ModelOptimizer
from fastseg_runtime.arrays import image
from fastseg_runtime.arrays.image import read_image
from fastseg_runtime.bundle.contract import write_contract
from fastseg_runtime.bundle.manifest import ClassInfo, InputSpec, Manifest, palette
from fastseg_runtime.bundle.reader import open_bundle
from fastseg_runtime.engines import frame_runner
from fastseg_runtime.frames import draw
from fastseg_runtime.frames.video import FrameSource

from fastseg.checkpoint import load_checkpoint
from tests.doubles.tiny_bundle import empty_plan

SOURCES = Path(__file__).parents[3] / "runtime/cpp"
WEIGHTS = Path(__file__).parents[3] / "fastseg/weights/nano-camvid.safetensors"
SIZE, THREADS = (512, 256), 1
WARNINGS = "-O1 -Wall -Wextra -Werror"
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all"
RESIZES = ("stretch", "letterbox")
Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def openvino() -> Any:
    for tool in ("g++", "cmake"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}: apt install {tool}")
    return pytest.importorskip("openvino", reason="needs OpenVINO: pip install openvino")


def build(openvino: Any, folder: Path, *options: str) -> Path:
    prefix = f"-DCMAKE_PREFIX_PATH={openvino.__path__[0]}"
    for command in (["-S", str(SOURCES), "-B", str(folder), prefix, *options], ["--build", folder]):
        done = subprocess.run(["cmake", *command], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "fastseg_openvino"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The shipped nano network, extracted from a bundle that stretches and one that letterboxes."""
    root = tmp_path_factory.mktemp("networks")
    network, info = load_checkpoint(WEIGHTS)
    content = ModelOptimizer(network, SIZE).export_to_onnx(root / "nano.onnx").read_bytes()
    classes = [ClassInfo(entry.name, entry.color) for entry in info.classes]
    for resize in RESIZES:
        plan = empty_plan(classes=classes, input=InputSpec(*SIZE, resize=resize))
        plan = plan.with_artifact("intel", content)
        with open_bundle(plan.write(root / f"{resize}.fastseg")) as bundle:
            bundle.extract("intel", root / resize)
            write_contract(bundle.manifest, bundle.artifact("intel"), root / resize)
    return {resize: root / resize for resize in RESIZES}


@pytest.fixture(scope="module")
def frames() -> list[Array]:
    """50 real frames of three sizes."""
    if not {"FASTSEG_CLIPS", "FASTSEG_CAMVID"} <= set(os.environ):
        pytest.skip("FASTSEG_CLIPS and FASTSEG_CAMVID are not set: no real frames here")
    clips = Path(os.environ["FASTSEG_CLIPS"])
    seen: list[Array] = []
    for name in ("vehicle_test_1280x720.mp4", "solidWhiteRight_960x540.mp4"):
        seen += islice(FrameSource(str(clips / name)), 17)
    pictures = sorted(Path(os.environ["FASTSEG_CAMVID"], "test/images").iterdir())
    seen += [read_image(picture) for picture in pictures[:16]]
    assert len(seen) == 50
    assert len({frame.shape for frame in seen}) == 3
    return seen


class Example:
    """The program as a child that takes one picture after the other."""

    def __init__(self, program: Path, folder: Path, kind: str, log: Path) -> None:
        command = [str(program), str(folder), kind, "CPU", str(THREADS)]
        # TBB loads a part of itself in a way that sanitizers refuse unless it is told of them.
        environment = {**os.environ, "TBB_ENABLE_SANITIZERS": "1"}
        self._log, self._errors = log, log.open("wb")
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self._errors, env=environment
        )

    def __call__(self, frame_HW3: Array) -> Array:
        """Return the ids (H, W), or the overlay (H, W, 3), of a frame."""
        given, taken = self._child.stdin, self._child.stdout
        assert given is not None
        assert taken is not None
        given.write(b"P6\n%d %d\n255\n" % frame_HW3.shape[1::-1] + frame_HW3.tobytes())
        given.flush()
        channels = {b"P5": 1, b"P6": 3}[taken.readline().strip()]
        width, height = map(int, taken.readline().split())
        assert taken.readline() == b"255\n"
        pixels = np.frombuffer(taken.read(width * height * channels), np.uint8)
        return pixels.reshape((height, width, 3)[: 2 + channels // 3])

    def times_ms(self) -> list[float]:
        return [float(line.split()[0]) for line in self._log.read_text().splitlines()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: object, trace: TracebackType | None) -> None:
        self._child.communicate(timeout=60)
        self._errors.close()
        assert self._child.returncode == 0, self._log.read_text()


class Here:
    """OpenVINO in Python with the same settings, behind the runtime's own handling of frames."""

    def __init__(self, openvino: Any, folder: Path) -> None:
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": THREADS}
        from fastseg_runtime.engines.backend_openvino import _core  # one a process: see there

        compiled = _core().compile_model(str(folder / "model.onnx"), "CPU", options)
        self._tensor, self._request = openvino.Tensor, compiled.create_infer_request()

    def infer(self, image_1HW3: Array) -> Array:
        self._request.set_tensor("image", self._tensor(image_1HW3, shared_memory=True))
        self._request.infer()
        ids: Array = self._request.get_tensor("classes").data
        return ids


def python_runner(
    openvino: Any, folder: Path, resize: str, monkeypatch: pytest.MonkeyPatch
) -> frame_runner.FrameRunner:
    for module in (frame_runner, image):
        monkeypatch.setattr(module, "opencv", lambda: None)
    with open_bundle(folder.with_suffix(".fastseg")) as bundle:
        manifest: Manifest = bundle.manifest
    backend: Any = Here(openvino, folder)
    return frame_runner.FrameRunner(
        backend, manifest.artifacts[0], manifest.input, manifest.output, len(manifest.classes)
    )


@pytest.mark.slow
def test_the_example_gives_pythons_ids_and_overlays_under_sanitizers(
    openvino: Any,
    folders: dict[str, Path],
    frames: list[Array],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = f"-DCMAKE_CXX_FLAGS_RELEASE={WARNINGS} {SANITIZERS}"
    program = build(openvino, tmp_path / "build", flags)
    for resize, folder in folders.items():
        runner = python_runner(openvino, folder, resize, monkeypatch)
        with Example(program, folder, "ids", tmp_path / "log") as example:
            for frame in frames:
                expected = runner.infer_new(frame)
                assert np.array_equal(example(frame), expected), (resize, frame.shape)
                assert len(np.unique(expected)) > 2
        assert len(example.times_ms()) == len(frames)
    with open_bundle(folder.with_suffix(".fastseg")) as bundle:
        colors_K3 = palette(bundle.manifest.classes)[: len(bundle.manifest.classes)]
    with Example(program, folder, "overlay", tmp_path / "log") as example:
        drawn = draw.overlay(frame, expected, colors_K3)
        assert np.array_equal(example(frame), drawn)


@pytest.mark.figures
def test_a_frame_takes_at_most_the_time_of_python(
    openvino: Any,
    folders: dict[str, Path],
    frames: list[Array],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = build(openvino, tmp_path / "build")
    ratios = {}
    for resize, folder in folders.items():
        runner = python_runner(openvino, folder, resize, monkeypatch)
        taken_ms = []
        with Example(program, folder, "ids", tmp_path / "log") as example:
            for frame in frames:  # in turn, so that both see the same machine
                ids_HW = example(frame)
                start = perf_counter()
                runner.infer(frame, ids_HW.copy())
                taken_ms.append((perf_counter() - start) * 1000)
        pairs = zip(example.times_ms(), taken_ms, strict=True)
        ratios[resize] = median(cpp_ms / python_ms for cpp_ms, python_ms in pairs)
    print(ratios)
    assert max(ratios.values()) <= 1, ratios
