"""The C++ examples, built as their page says, against Python on real frames."""

import os
import shutil
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Self

import numpy as np
import onnx
import pytest
from fastseg_exporters import ModelOptimizer
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays import image
from fastseg_runtime.arrays.image import opencv as image_opencv
from fastseg_runtime.arrays.image import read_image
from fastseg_runtime.bundle.contract import write_contract
from fastseg_runtime.bundle.manifest import ClassInfo, InputSpec, Manifest, palette
from fastseg_runtime.bundle.reader import open_bundle
from fastseg_runtime.engines import frame_runner
from fastseg_runtime.frames import draw
from fastseg_runtime.frames.video import FrameSource
from onnx import TensorProto, helper

from fastseg.checkpoint import load_checkpoint
from tests.doubles.fastseg_run import running
from tests.doubles.tiny_bundle import HEIGHT, WIDTH, argmax_onnx, empty_plan, noise
from tests.runtime.engines.test_backend_onnxruntime import faint_channels_onnx

SOURCES = Path(__file__).parents[3] / "runtime/cpp"
WEIGHTS = Path(__file__).parents[3] / "fastseg/weights/nano-camvid.safetensors"
SIZE, THREADS, TARGET = (512, 256), 1, "cpu-fp32"
WARNINGS = "-O1 -Wall -Wextra -Werror"
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all"
RESIZES = ("stretch", "letterbox")
ENGINES = ("openvino", "onnxruntime")
Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    for tool in ("g++", "cmake"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}: apt install {tool}")
    if find_spec(request.param) is None:
        pytest.skip(f"needs {request.param}: pip install {request.param}")
    return str(request.param)


def package(engine: str) -> Path:
    spec = find_spec(engine)
    assert spec is not None
    return Path(str(spec.origin)).parent


def arguments(engine: str) -> tuple[str, str]:
    """Return what follows FOLDER and ids|overlay."""
    (library,) = package("onnxruntime").glob("capi/libonnxruntime.so.*")
    return {"openvino": "CPU", "onnxruntime": str(library)}[engine], str(THREADS)


def build(engine: str, folder: Path, *options: str) -> Path:
    if engine == "openvino":
        options = (f"-DCMAKE_PREFIX_PATH={package(engine)}", *options)
    target = f"fastseg_{engine}"
    run_cmake("-S", str(SOURCES), "-B", str(folder), *options)
    run_cmake("--build", str(folder), "--target", target)
    return folder / target


def run_cmake(*command: str) -> None:
    done = subprocess.run(["cmake", *command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The shipped nano network, extracted from a bundle that stretches and one that letterboxes."""
    root = tmp_path_factory.mktemp("networks")
    network, info = load_checkpoint(WEIGHTS)
    content = ModelOptimizer(network, SIZE).export_to_onnx(root / "nano.onnx").read_bytes()
    classes = [ClassInfo(entry.name, entry.color) for entry in info.classes]
    for resize in RESIZES:
        plan = empty_plan(classes=classes, input=InputSpec(*SIZE, resize=resize))
        plan = plan.with_artifact(TARGET, content)
        with open_bundle(plan.write(root / f"{resize}.fastseg")) as bundle:
            bundle.extract(TARGET, root / resize)
            write_contract(bundle.manifest, bundle.artifact(TARGET), root / resize)
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

    def __init__(self, program: Path, folder: Path, kind: str, engine: str, log: Path) -> None:
        command = [str(program), str(folder), kind, *arguments(engine)]
        # TBB loads a part of itself in a way that sanitizers refuse unless it is told of them.
        environment = {**os.environ, "TBB_ENABLE_SANITIZERS": "1"}
        self._log, self._errors = log, log.open("wb")
        pipe = subprocess.PIPE
        pipes = {"stdin": pipe, "stdout": pipe, "stderr": self._errors}
        self._running = running(command, 600, text=False, env=environment, **pipes)

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
        self._child = self._running.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self._child.communicate(timeout=60)
        finally:
            self._running.__exit__(*error)
            self._errors.close()
        assert self._child.returncode == 0, self._log.read_text()


class Here:
    """OpenVINO in Python with the same settings, behind the runtime's own handling of frames."""

    def __init__(self, folder: Path) -> None:
        import openvino

        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": THREADS}
        from fastseg_runtime.engines.backend_openvino import _core  # one a process: see there

        compiled = _core().compile_model(str(folder / "model.onnx"), "CPU", options)
        self._tensor, self._request = openvino.Tensor, compiled.create_infer_request()

    def infer(self, image_1HW3: Array) -> Array:
        self._request.set_tensor("image", self._tensor(image_1HW3, shared_memory=True))
        self._request.infer()
        ids: Array = self._request.get_tensor("classes").data
        return ids


def python_infer(
    engine: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Array, Array], Any]:
    """Return what writes the ids (H, W) of a frame, on numpy's path."""
    for module in (frame_runner, image):
        monkeypatch.setattr(module, "opencv", lambda: None)
    bundle_file = folder.with_suffix(".fastseg")
    if engine == "onnxruntime":
        return RealtimeSegmentation(bundle_file, target=TARGET, threads=THREADS).infer
    with open_bundle(bundle_file) as bundle:
        manifest: Manifest = bundle.manifest
    backend: Any = Here(folder)
    return frame_runner.FrameRunner(
        backend, manifest.artifacts[0], manifest.input, manifest.output, len(manifest.classes)
    ).infer


@pytest.fixture(scope="module")
def sanitized(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    flags = f"-DCMAKE_CXX_FLAGS_RELEASE={WARNINGS} {SANITIZERS}"
    return build(engine, tmp_path_factory.mktemp(engine), flags)


@pytest.mark.slow
def test_the_example_gives_pythons_ids_and_overlays_under_sanitizers(
    engine: str,
    sanitized: Path,
    folders: dict[str, Path],
    frames: list[Array],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for resize, folder in folders.items():
        infer = python_infer(engine, folder, monkeypatch)
        with Example(sanitized, folder, "ids", engine, tmp_path / "log") as example:
            for frame in frames[::4]:
                expected = np.empty(frame.shape[:2], np.uint8)
                infer(frame, expected)
                assert np.array_equal(example(frame), expected), (resize, frame.shape)
                assert len(np.unique(expected)) > 2
        assert len(example.times_ms()) == len(frames[::4])
    with open_bundle(folder.with_suffix(".fastseg")) as bundle:
        colors_K3 = palette(bundle.manifest.classes)[: len(bundle.manifest.classes)]
    with Example(sanitized, folder, "overlay", engine, tmp_path / "log") as example:
        drawn = draw.overlay(frame, expected, colors_K3)
        assert np.array_equal(example(frame), drawn)


def refusal(program: Path, *given: str | Path) -> str:
    command = [str(program), *map(str, given)]
    done = subprocess.run(command, input=b"P6\n8 8\n255\n" + b"7" * 192, capture_output=True)
    assert (done.returncode, done.stdout) == (1, b""), done
    (line,) = done.stderr.decode().splitlines()
    return line


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime"], indirect=True, scope="module")
def test_the_example_of_onnx_runtime_refuses_in_one_line(sanitized: Path, tmp_path: Path) -> None:
    def refused(library: str | Path, network: bytes = argmax_onnx(), **names: str) -> str:
        plan = empty_plan().with_artifact(TARGET, network)
        (tmp_path / "model.onnx").write_bytes(network)
        file = write_contract(plan.manifest, plan.manifest.artifacts[0], tmp_path)
        for old, new in names.items():
            file.write_text(file.read_text().replace(f'"name": "{old}"', f'"name": "{new}"'))
        return refusal(sanitized, tmp_path, "ids", library)

    library, _ = arguments("onnxruntime")
    assert "cannot be loaded" in refused(tmp_path / "libonnxruntime.so")
    assert "has no OrtGetApiBase" in refused("libm.so.6")
    assert "is ONNX Runtime 1.16.3; 1.17 or newer" in refused(older_library(tmp_path))
    assert "ONNX Runtime: " in refused(library, b"no network")
    assert "ONNX Runtime: " in refused(library, argmax_onnx(width=64))
    assert "picture" in refused(library, image="picture")
    assert "labels" in refused(library, classes="labels")
    for type_ in (TensorProto.INT64, TensorProto.FLOAT):
        assert "not what contract.json says" in refused(library, argmax_onnx(output_type=type_))
    assert "usage: fastseg_onnxruntime" in refusal(sanitized, tmp_path, "ids")
    assert "usage: fastseg_onnxruntime" in refusal(sanitized, tmp_path, "map", library)
    for threads in ("many", "-1", "1000", ""):
        assert f"got '{threads}'" in refusal(sanitized, tmp_path, "ids", library, threads)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime"], indirect=True, scope="module")
def test_the_example_of_onnx_runtime_computes_a_graph_for_tensorrt_as_python_does(
    sanitized: Path, tmp_path: Path
) -> None:
    """Whose second class wins by a bias that ONNX Runtime's integer kernels lose."""
    model = onnx.load_from_string(faint_channels_onnx())
    model.graph.node.append(helper.make_node("ArgMax", ["logits"], ["best"], axis=1, keepdims=0))
    model.graph.node.append(helper.make_node("Cast", ["best"], ["classes"], to=TensorProto.UINT8))
    ids = helper.make_tensor_value_info("classes", TensorProto.UINT8, [1, HEIGHT, WIDTH])
    model.graph.output[0].CopyFrom(ids)
    requires = {"backend": "tensorrt"}
    plan = empty_plan().with_artifact(TARGET, model.SerializeToString(), requires=requires)
    with open_bundle(plan.write(tmp_path / "faint.fastseg")) as bundle:
        bundle.extract(TARGET, tmp_path)
        write_contract(bundle.manifest, bundle.artifact(TARGET), tmp_path)
    with RealtimeSegmentation(tmp_path / "faint.fastseg", backend="onnxruntime") as session:
        expected = session.infer(noise())
    with Example(sanitized, tmp_path, "ids", "onnxruntime", tmp_path / "log") as example:
        assert np.array_equal(example(noise()), expected)
    assert expected.all()


def streamed(program: Path, engine: str, folder: Path, given: bytes, **pipes: Any) -> list[str]:
    """Return what the program says of a stream that it refuses, after the times of its pictures."""
    (folder / "model.onnx").write_bytes(argmax_onnx())
    plan = empty_plan().with_artifact(TARGET, argmax_onnx())
    write_contract(plan.manifest, plan.manifest.artifacts[0], folder)
    command = [str(program), str(folder), "ids", *arguments(engine)]
    # A gigabyte at once is refused by the sanitizer, for all.
    refuses = {"ASAN_OPTIONS": "max_allocation_size_mb=1000", "TBB_ENABLE_SANITIZERS": "1"}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, **pipes}
    done = subprocess.run(command, input=given, env={**os.environ, **refuses}, timeout=60, **pipes)
    assert done.returncode == 1
    *times, said = done.stderr.decode().splitlines()
    assert all(line.endswith(" ms") for line in times)
    return [*times, said]


@pytest.mark.slow
def test_a_stream_ends_with_the_first_picture_that_cannot_be_written(
    engine: str, sanitized: Path, tmp_path: Path
) -> None:
    given = (b"P6\n8 8\n255\n" + b"7" * 192) * 200
    with open("/dev/full", "wb") as full:
        _, said = streamed(sanitized, engine, tmp_path, given, stdout=full)
    assert "stdout cannot be written to" in said


@pytest.mark.slow
def test_a_stream_without_a_picture_is_refused(
    engine: str, sanitized: Path, tmp_path: Path
) -> None:
    assert "stdin has no picture" in streamed(sanitized, engine, tmp_path, b"")[0]


@pytest.mark.slow
def test_a_picture_takes_memory_as_its_bytes_come(
    engine: str, sanitized: Path, tmp_path: Path
) -> None:
    (said,) = streamed(sanitized, engine, tmp_path, b"P6\n32767 32767\n255\n" + b"7" * (3 << 20))
    assert "stdin ends in the middle of a picture" in said


def older_library(folder: Path) -> Path:
    """Build what answers as an ONNX Runtime of a release before those that are promised does."""
    code = """#include <stdint.h>
        static const void *api(uint32_t version) { return version > 16 ? 0 : &api; }
        static const char *version(void) { return "1.16.3"; }
        static const struct { const void *(*api)(uint32_t); const char *(*version)(void); } base =
            {api, version};
        const void *OrtGetApiBase(void) { return &base; }"""
    library = folder / "libolder.so"
    command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", library]
    subprocess.run(command, input=code.encode(), check=True, timeout=60)
    return library


@pytest.mark.figures
def test_a_frame_has_the_ids_of_python_in_at_most_its_time(
    engine: str,
    folders: dict[str, Path],
    frames: list[Array],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = build(engine, tmp_path / "build")
    ratios = {}
    for resize, folder in folders.items():
        infer = python_infer(engine, folder, monkeypatch)
        numpy_ms, opencv_ms = [], []
        with Example(program, folder, "ids", engine, tmp_path / "log") as example:
            for frame in frames:  # in turn, so that all see the same machine
                ids_HW, expected_HW = example(frame), np.empty(frame.shape[:2], np.uint8)
                numpy_ms.append(time_ms(infer, frame, expected_HW))
                assert np.array_equal(ids_HW, expected_HW), (resize, frame.shape)
                with monkeypatch.context() as installed:
                    for module in (frame_runner, image):
                        installed.setattr(module, "opencv", image_opencv)
                    opencv_ms.append(time_ms(infer, frame, expected_HW))
        for name, taken_ms in (("numpy", numpy_ms), ("OpenCV", opencv_ms)):
            pairs = zip(example.times_ms(), taken_ms, strict=True)
            ratios[resize, name] = median(cpp_ms / python_ms for cpp_ms, python_ms in pairs)
    print(engine, ratios)
    assert max(ratios[resize, "numpy"] for resize in RESIZES) <= 1, ratios


def time_ms(infer: Callable[[Array, Array], Any], frame_HW3: Array, ids_HW: Array) -> float:
    start = perf_counter()
    infer(frame_HW3, ids_HW)
    return (perf_counter() - start) * 1000
