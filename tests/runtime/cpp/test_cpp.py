"""runtime/cpp/fastseg.hpp, compiled with sanitizers, against Python without OpenCV."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastseg_runtime.arrays import image
from fastseg_runtime.bundle.contract import write_contract
from fastseg_runtime.bundle.manifest import ClassInfo, InputSpec, OutputSpec
from fastseg_runtime.bundle.reader import open_bundle
from fastseg_runtime.engines import frame_runner
from fastseg_runtime.frames.draw import overlay

from tests.doubles.tiny_bundle import CLASSES, HEIGHT, WIDTH, empty_plan, full_plan, noise

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++: apt install g++"),
]
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", "-Wshadow"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# Of frames, (height, width): single pixels and rows, the network's own, prime, larger both ways.
SIZES = [(1, 1), (1, 90), (77, 1), (HEIGHT, WIDTH), (31, 47), (72, 128), (101, 67), (20, 300)]
Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("cpp") / "stand_in"
    source = Path(__file__).with_name("stand_in.cpp")
    # "native" lets GCC fuse multiplications and additions, which would round otherwise.
    flags = ["-std=c++17", "-O1", "-march=native", *WARNINGS, *SANITIZERS]
    subprocess.run(["g++", *flags, str(source), "-o", str(program)], check=True, timeout=300)
    return program


def extracted(folder: Path, **fields: Any) -> Path:
    with open_bundle(full_plan(**fields).write(folder / "tiny.fastseg")) as bundle:
        bundle.extract("cpu-fp32", folder / "model")
        contract = write_contract(bundle.manifest, bundle.artifact("cpu-fp32"), folder / "model")
    return contract.parent


def call(program: Path, *arguments: str | Path, given: bytes = b"") -> bytes:
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, input=given, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def refusal(program: Path, folder: Path) -> str:
    done = subprocess.run([program, "show", folder], capture_output=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, b""), done
    (line,) = done.stderr.decode().splitlines()
    return line


def ppm(image_HW3: Array) -> bytes:
    return b"P6\n%d %d\n255\n" % image_HW3.shape[1::-1] + image_HW3.tobytes()


def pictures(content: bytes) -> Iterator[Array]:
    """Yield each PPM (H, W, 3) and PGM (H, W) of a stream."""
    while content:
        kind, size, _, content = content.split(b"\n", 3)
        width, height = map(int, size.split())
        shape = (height, width, 3) if kind == b"P6" else (height, width)
        count = int(np.prod(shape))
        yield np.frombuffer(content, np.uint8, count).reshape(shape)
        content = content[count:]


@pytest.mark.parametrize("mask_stride", [1, 4])
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_input_ids_and_overlay_are_those_of_python(
    stand_in: Path,
    tmp_path: Path,
    resize: str,
    mask_stride: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (frame_runner, image):
        monkeypatch.setattr(module, "opencv", lambda: None)
    spec = InputSpec(WIDTH, HEIGHT, mean=120.5, resize=resize)  # .5 rounds to even, as in Python
    folder = extracted(tmp_path, input=spec, output=OutputSpec(mask_stride=mask_stride))
    frames = [noise(*size, seed=index) for index, size in enumerate(SIZES)]
    given = b"".join(map(ppm, frames))
    seen = pictures(call(stand_in, "run", folder, given=given))
    palette_K3 = np.array([entry.color for entry in CLASSES], np.uint8)
    mask_size = (HEIGHT // mask_stride, WIDTH // mask_stride)
    for frame in frames:
        for swap in (False, True):
            fit = frame_runner.FrameFit(frame.shape[:2], spec, mask_size, swap)
            image_HW3 = fit.to_input(frame)[0]
            ids_HW = np.empty(frame.shape[:2], np.uint8)
            small = image_HW3[::mask_stride, ::mask_stride].argmax(axis=2).astype(np.uint8)
            fit.to_frame(small, ids_HW)
            ids_HW[-1, -1] = 200
            colors_K3 = palette_K3[:, ::-1] if swap else palette_K3
            for expected in (image_HW3, ids_HW, overlay(frame, ids_HW, colors_K3, 0.3)):
                assert np.array_equal(next(seen), expected), (frame.shape, swap)
    assert not list(seen)


# Of the input and of its scores, (height, width): a whole factor, padding that hangs over, no
# factor in common, one score.
@pytest.mark.parametrize(
    ("size", "scores"),
    [((32, 48), (4, 6)), ((30, 44), (4, 6)), ((30, 44), (5, 6)), ((9, 7), (1, 1))],
)
@pytest.mark.parametrize("cover", ["padded", "image"])
@pytest.mark.parametrize("order", ["NCHW", "NHWC"])
def test_ids_of_logits_are_those_of_python(
    stand_in: Path,
    tmp_path: Path,
    order: str,
    cover: str,
    size: tuple[int, int],
    scores: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (frame_runner, image):
        monkeypatch.setattr(module, "opencv", lambda: None)
    (height, width), (high, wide) = size, scores
    spec, output = InputSpec(width, height, resize="letterbox"), OutputSpec("logits", cover=cover)
    plan = empty_plan(width, height, input=spec, output=output)
    plan = plan.with_artifact("cpu-fp32", b"", io={"logits": f"float32 {order}"})
    write_contract(plan.manifest, plan.manifest.artifacts[0], tmp_path)
    frames = [noise(height, width), noise(61, 83, seed=1)]
    given = b"".join(map(ppm, frames))
    seen = pictures(call(stand_in, "logits", tmp_path, str(high), str(wide), given=given))
    decode = frame_runner.LogitsToClasses(scores, size, cover == "padded")
    rows, columns = np.arange(high) * height // high, np.arange(wide) * width // wide
    for frame in frames:
        fit = frame_runner.FrameFit(frame.shape[:2], spec, size, swap=False)
        logits_hwK = fit.to_input(frame)[0][rows][:, columns].astype(np.float32)
        expected = np.empty(frame.shape[:2], np.uint8)
        fit.to_frame(decode(logits_hwK.transpose(2, 0, 1)), expected)
        assert np.array_equal(next(seen), expected)
    assert not list(seen)


def test_an_engine_that_gives_something_else_than_the_contract_says_is_refused(
    stand_in: Path, tmp_path: Path
) -> None:
    command = [stand_in, "logits", extracted(tmp_path), "4", "6"]
    done = subprocess.run(command, capture_output=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"gives classes and its engine logits" in done.stderr


def test_the_header_reads_every_field_that_extract_writes(stand_in: Path, tmp_path: Path) -> None:
    classes = [ClassInfo(name, (0, 7, 255)) for name in ('Straße "B\\1"', "道路", "\U0001f697")]
    spec = InputSpec(WIDTH, HEIGHT, mean=123.675, std=58.395, resize="letterbox")
    folder = extracted(tmp_path, input=spec, output=OutputSpec(mask_stride=2), classes=classes)
    expected = ["cpu-fp32", "model.onnx", "image uint8 NHWC 48 32 123.675 58.395 1"]
    expected += ["classes uint8 NHW 24 16 255", *(f"{entry.name} 0 7 255" for entry in classes)]
    shown = call(stand_in, "show", folder).decode().splitlines()
    assert shown == expected
    file = folder / "contract.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8"))), "ascii")  # \\u escapes
    assert call(stand_in, "show", folder).decode().splitlines() == shown


def test_no_damage_of_a_contract_is_more_than_an_error(stand_in: Path, tmp_path: Path) -> None:
    content = (extracted(tmp_path) / "contract.json").read_bytes()
    assert call(stand_in, "damage", given=content) == b"0 beginnings are whole, 1\n"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"version": 1', '"version": 2', "another version than 1"),
        ('"version": 1', '"version": 1, "version": 1', "there before"),
        ('"width": 48', '"width": 0', "input.width"),
        ('"width": 48', '"width": 16385', "input.width"),
        ('"width": 48', '"width": 48.5', "input.width"),
        ('"width": 48', '"width": 1e999', "too large"),
        ('"width": 48', '"width": 048', "expected ',' or '}'"),
        ('"width": 48', '"width": NaN', "damaged"),
        ('"stretch"', '"crop"', "input.resize"),
        ('"padded"', '"whole"', "output.cover"),
        ('"model.onnx"', '"../model.onnx"', "at file"),
        ('"model.onnx"', '"/etc/passwd"', "at file"),
        ('"model.onnx"', '"a\\u0000b"', "at file"),
        ('"model.onnx"', '"\\ud83d"', "half a character"),
        ('"version": 1', '"version": 1, "x": ' + "[" * 9 + "]" * 9, "nested too deep"),
        ('"version": 1', '"version": 1, "x": "' + "x" * (1 << 20) + '"', "larger than 1 MiB"),
    ],
)
def test_the_header_refuses_in_one_line(
    stand_in: Path, tmp_path: Path, old: str, new: str, told: str
) -> None:
    file = extracted(tmp_path) / "contract.json"
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), "utf-8")
    assert told in refusal(stand_in, file.parent)


def test_the_header_passes_over_keys_and_depths_that_newer_writers_add(
    stand_in: Path, tmp_path: Path
) -> None:
    file = extracted(tmp_path) / "contract.json"
    text = file.read_text("utf-8")
    file.write_text(text.replace("{", '{"x": ' + "[" * 8 + "]" * 8 + ",", 1), "utf-8")
    assert call(stand_in, "show", file.parent)


def test_a_folder_without_a_contract_says_what_writes_it(stand_in: Path, tmp_path: Path) -> None:
    assert "--extract TARGET" in refusal(stand_in, tmp_path)


def test_the_program_on_the_page_compiles() -> None:
    root = Path(__file__).parents[3]
    page = (root / "docs/platforms/cpp.md").read_text("utf-8")
    (program,) = re.findall(r"```cpp\n(.*?)```", page, re.DOTALL)
    flags = ["-std=c++17", "-fsyntax-only", *WARNINGS, "-I", str(root / "runtime/cpp")]
    command = ["g++", *flags, "-x", "c++", "-"]
    done = subprocess.run(command, input=program, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
