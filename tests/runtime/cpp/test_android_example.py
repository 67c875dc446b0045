"""The JNI call of the Android example, in a JVM here, against Python; no phone has run it."""

import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays import image
from fastseg_runtime.bundle.contract import write_contract
from fastseg_runtime.bundle.manifest import InputSpec
from fastseg_runtime.bundle.reader import open_bundle
from fastseg_runtime.engines import frame_runner

from tests.doubles.tiny_bundle import HEIGHT, WIDTH, full_plan, noise

SOURCES = Path(__file__).parents[3] / "runtime/cpp"
FLAGS = "-O1 -Wall -Wextra -Werror -pedantic -Wconversion -Wshadow"
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all"
# Of frames, (height, width): the network's own, odd sides, larger both ways.
SIZES = [(HEIGHT, WIDTH), (31, 47), (72, 129), (1, 1)]
Array = np.ndarray[Any, Any]

pytestmark = [
    pytest.mark.slow,
    *(
        pytest.mark.skipif(shutil.which(tool) is None, reason=f"needs {tool}: apt install {name}")
        for tool, name in {
            "javac": "default-jdk-headless",
            "cmake": "cmake",
            "g++": "g++",
        }.items()
    ),
    pytest.mark.skipif(find_spec("onnxruntime") is None, reason="pip install onnxruntime"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the command of tests' Frames.java, with the library built by the NDK's build file."""
    folder = tmp_path_factory.mktemp("android")
    home = Path(str(shutil.which("javac"))).resolve().parents[1]
    classes = folder / "classes"
    java = [SOURCES / "examples/android/fastseg/Segmenter.java", Path(__file__).parent]
    sources = [str(java[0]), str(java[1] / "Frames.java")]
    options = [f"-DCMAKE_CXX_FLAGS_RELEASE={FLAGS} {SANITIZERS}"]
    for command in (
        ["cmake", "-S", str(SOURCES), "-B", str(folder), *options],
        ["cmake", "--build", str(folder), "--target", "fastseg_jni"],
        ["javac", "-Xlint:all,-options", "-Werror", "--release", "8", "-d", str(classes), *sources],
    ):
        environment = {**os.environ, "JAVA_HOME": str(home)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    checks = ["-Xcheck:jni", f"-Djava.library.path={folder}"]
    return ["java", *checks, "-cp", str(classes), "Frames"]


@dataclass(frozen=True)
class Given:
    """A frame as an app has it."""

    width: int
    height: int
    planes: Sequence[bytes | None]
    degrees: int = 0
    strides: tuple[int, int, int] = (0, 0, 0)  # of rows of plane 0 and the others, of pixels
    room: int = field(default=0)  # for ids, bytes; 0: enough; negative: not a direct buffer

    def content(self) -> bytes:
        numbers = [self.width, self.height, self.degrees, *self.strides]
        numbers += [self.room or self.width * self.height, len(self.planes)]
        content = struct.pack(">8i", *numbers)
        for plane in self.planes:
            content += struct.pack(">i", -1 if plane is None else len(plane)) + (plane or b"")
        return content


def run(program: list[str], folder: Path, given: Sequence[Given]) -> list[bytes | str]:
    """Return the ids of each frame, or why there are none."""
    (library,) = Path(str(find_spec("onnxruntime").origin)).parent.glob("capi/libonnxruntime.so.*")
    # java is not built with them; and what throws has to be there when ASan starts.
    preload = [
        subprocess.run(
            ["g++", f"-print-file-name={name}.so"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan", "libstdc++")
    ]
    # The JVM makes and catches faults of its own, and does not free all that it has.
    options = "handle_segv=0:detect_leaks=0:allow_user_segv_handler=1"
    native = {"LD_PRELOAD": " ".join(preload), "ASAN_OPTIONS": options}
    done = subprocess.run(
        [*program, str(folder), str(library)],
        input=b"".join(frame.content() for frame in given),
        capture_output=True,
        env={**os.environ, **native, "LC_ALL": "C.UTF-8"},  # what java reads its arguments by
        cwd=folder,  # where a JVM that crashes leaves its report
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()
    answers: list[bytes | str] = []
    rest = done.stdout
    for _ in given:
        (size,) = struct.unpack(">i", rest[:4])
        rest = rest[4:]
        if size < 0:
            (size,) = struct.unpack(">H", rest[:2])
            answers.append(rest[2 : 2 + size].decode())
            rest = rest[2:]
        else:
            answers.append(rest[:size])
        rest = rest[size:]
    assert b"the segmenter is closed; make another" in rest  # a call after close()
    return answers


@pytest.fixture
def bundle_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (frame_runner, image):
        monkeypatch.setattr(module, "opencv", lambda: None)
    plan = full_plan(input=InputSpec(WIDTH, HEIGHT, resize="letterbox"))
    with open_bundle(plan.write(tmp_path / "tiny.fastseg")) as bundle:
        bundle.extract("cpu-fp32", tmp_path)
        write_contract(bundle.manifest, bundle.artifact("cpu-fp32"), tmp_path)
    return tmp_path / "tiny.fastseg"


def padded(plane_HWC: Array, row_stride: int) -> bytes:
    """Rows of a plane at a stride; the last row is not padded, as Android leaves it."""
    rows = [row.tobytes().ljust(row_stride, b"\x99") for row in plane_HWC[:-1]]
    return b"".join(rows) + plane_HWC[-1].tobytes()


def rgba(frame_HW3: Array, degrees: int) -> Given:
    height, width, _ = frame_HW3.shape
    alpha = np.full((height, width, 1), 255, np.uint8)
    stride = 4 * width + 12
    plane = padded(np.concatenate([frame_HW3, alpha], axis=2), stride)
    return Given(width, height, [plane], degrees, (stride, 0, 0))


def yuv(y_HW: Array, u_hw: Array, v_hw: Array, degrees: int, interleaved: bool) -> Given:
    (height, width), columns = y_HW.shape, u_hw.shape[1]
    y_stride, pixel = width + 7, 2 if interleaved else 1
    stride = columns * pixel + 5
    if interleaved:  # as cameras have it: two views of V U V U ..., one byte apart
        chroma = padded(np.stack([v_hw, u_hw], axis=2).reshape(len(v_hw), -1), stride)
        chroma_planes = [chroma[1:], chroma[:-1]]
    else:
        chroma_planes = [padded(u_hw, stride), padded(v_hw, stride)]
    planes = [padded(y_HW, y_stride), *chroma_planes]
    return Given(width, height, planes, degrees, (y_stride, stride, pixel))


def to_rgb(y_HW: Array, u_hw: Array, v_hw: Array) -> Array:
    """BT.601 over the whole range, in fixed point of 16 bits."""
    height, width = y_HW.shape
    y, u, v = (
        plane.astype(np.int64)
        for plane in (
            y_HW,
            *(p.repeat(2, 0).repeat(2, 1)[:height, :width] for p in (u_hw, v_hw)),
        )
    )
    u, v = u - 128, v - 128
    exact = np.stack([y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u], axis=2).clip(
        0, 255
    )
    parts = [91881 * v, -22554 * u - 46802 * v, 116130 * u]
    rgb_HW3 = np.stack([(65536 * y + part + 32768) >> 16 for part in parts], axis=2).clip(0, 255)
    assert np.abs(rgb_HW3 - exact).max() < 0.51
    return rgb_HW3.astype(np.uint8)


def test_frames_of_a_camera_have_the_ids_of_python(program: list[str], bundle_file: Path) -> None:
    given, expected = [], []
    with RealtimeSegmentation(bundle_file, target="cpu-fp32", threads=1) as seg:
        for index, (height, width) in enumerate(SIZES):
            random = np.random.default_rng(index)
            frame_HW3 = noise(height, width, seed=index)
            y_HW = random.integers(0, 256, (height, width), np.uint8)
            half = ((height + 1) // 2, (width + 1) // 2)
            u_hw, v_hw = random.integers(0, 256, (2, *half), np.uint8)
            for quarters in range(4):
                turn = {"k": -quarters, "axes": (0, 1)}
                given += [rgba(frame_HW3, 90 * quarters)]
                given += [
                    yuv(y_HW, u_hw, v_hw, 90 * quarters, interleaved)
                    for interleaved in (False, True)
                ]
                for picture in (frame_HW3, *[to_rgb(y_HW, u_hw, v_hw)] * 2):
                    upright_HW3 = np.ascontiguousarray(np.rot90(picture, **turn))
                    expected.append(seg.infer(upright_HW3).tobytes())
    assert run(program, bundle_file.parent, given) == expected


def test_a_folder_may_be_called_by_any_character(program: list[str], bundle_file: Path) -> None:
    folder = bundle_file.parent / "Straße-道-\U0001f697"
    folder.mkdir()
    for name in ("contract.json", "model.onnx"):
        shutil.copy(bundle_file.with_name(name), folder)
    (ids,) = run(program, folder, [rgba(noise(), 0)])
    assert isinstance(ids, bytes)


def test_what_cannot_be_is_an_exception_and_not_a_crash(
    program: list[str], bundle_file: Path
) -> None:
    frame = rgba(noise(8, 6), 0)
    (plane,), stride = frame.planes, frame.strides[0]
    assert plane is not None
    half = bytes(12)
    cases = [
        (Given(6, 8, [plane], 0, (stride, 0, 0), room=47), "the buffer of classes has 47 bytes"),
        (Given(6, 8, [plane], 0, (stride, 0, 0), room=-48), "the buffer of classes is no direct"),
        (Given(6, 8, [plane[:-1]], 0, (stride, 0, 0)), "the frame has"),
        (Given(6, 8, [None], 0, (stride, 0, 0)), "the frame is no direct buffer"),
        (Given(6, 8, [plane], 0, (-1, 0, 0)), "strides of -1"),
        (Given(6, 8, [plane], 0, (0, 0, 0)), "strides of 0"),
        (Given(6, 8, [plane], 0, (23, 0, 0)), "and 24 for a row"),
        (Given(6, 8, [plane], 0, (2**31 - 1, 0, 0)), "needs 15032385553"),
        (Given(6, 8, [plane], 45, (stride, 0, 0)), "a turn by 45 degrees"),
        (Given(0, 8, [plane], 0, (stride, 0, 0), room=1), "a frame of 0x8"),
        (Given(-6, 8, [plane], 0, (stride, 0, 0), room=1), "a frame of -6x8"),
        (Given(32768, 1, [plane], 0, (stride, 0, 0)), "a frame of 32768x1"),
        (Given(6, 8, [bytes(47), half, half], 0, (6, 3, 1)), "plane 0 has 47 bytes"),
        (Given(6, 8, [bytes(48), half[1:], half], 0, (6, 3, 1)), "plane 1 has 11 bytes"),
        (Given(6, 8, [bytes(48), half, None], 0, (6, 3, 1)), "plane 2 is no direct buffer"),
        (Given(6, 8, [bytes(48), half, half], 0, (6, 3, 0)), "strides of 3 and 0"),
        (Given(6, 8, [bytes(48), bytes(20), bytes(20)], 0, (6, 4, 2)), "and 5 for a row"),
        (Given(5, 7, [bytes(35), half, half[1:]], 0, (5, 3, 1)), "plane 2 has 11 bytes"),
        (frame, None),
    ]
    answers = run(program, bundle_file.parent, [given for given, _ in cases])
    for answer, (_, told) in zip(answers, cases, strict=True):
        if told is None:
            assert isinstance(answer, bytes)
        else:
            assert isinstance(answer, str)
            assert told in answer
