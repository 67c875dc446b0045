"""runtime/cpp/fastseg.hpp, compiled with sanitizers, against Python without OpenCV."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from time import perf_counter
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
    frames = [noise(height, width), noise(61, 83, seed=1), noise(height, width, seed=2)]
    frames[2][frames[2] > 200] = 255  # much that is infinite
    frames[2][frames[2] < 50] = 0  # and not a number
    given = b"".join(map(ppm, frames))
    seen = pictures(call(stand_in, "logits", tmp_path, str(high), str(wide), given=given))
    decode = frame_runner.LogitsToClasses(scores, size, cover == "padded")
    rows, columns = np.arange(high) * height // high, np.arange(wide) * width // wide
    for frame in frames:
        fit = frame_runner.FrameFit(frame.shape[:2], spec, size, swap=False)
        logits_hwK = fit.to_input(frame)[0][rows][:, columns].astype(np.float32)
        logits_hwK[logits_hwK == 0], logits_hwK[logits_hwK == 255] = np.nan, np.inf
        expected = np.empty(frame.shape[:2], np.uint8)
        with np.errstate(invalid="ignore"):
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
    expected = ["cpu-fp32", "model.onnx onnxruntime", "image uint8 NHWC 48 32 123.675 58.395 1"]
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
        ('"version": 1', '"version": 1.5', "another version than 1"),
        ('"version": 1', '"version": "1"', "a number at version"),
        ('"version": 1,', "", "a number at version"),
        ('"mean": 128.0', '"mean": -Infinity', "damaged"),
        ('"mean": 128.0', '"mean": 255.5', "input.mean"),
        ('"std": 64.0', '"std": 0', "input.std"),
        ('"std": 64.0', '"std": 1e-400', "input.std"),
        ('"height": 32\n', '"height": 33\n', "a number from 1 to 32 at output.height"),
        ('"ignore_index": 255', '"ignore_index": 256', "ignore_index"),
        ('"name": "image"', '"name": "im\\nage"', "without control characters at input.name"),
        ('"name": "red"', '"name": "\x7f"', "without control characters at classes[].name"),
        ('"name": "red"', '"name": "\x9b2J"', "without control characters at classes[].name"),
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


def contract_text(folder: Path) -> str:
    return (extracted(folder) / "contract.json").read_text("utf-8")


def read_each(program: Path, texts: Sequence[bytes]) -> list[bytes]:
    """Return a line for each contract: "read ..." or why not."""
    given = b"".join(b"%d\n%s" % (len(text), text) for text in texts)
    lines = call(program, "read", given=given).splitlines()
    assert len(lines) == len(texts)
    return lines


@pytest.mark.parametrize("kind", ["[]", "{}"])
def test_1000_entries_are_read_and_1001_are_not(stand_in: Path, tmp_path: Path, kind: str) -> None:
    def with_entries(count: int) -> bytes:
        entries = (f'"{index}":0' if kind == "{}" else "0" for index in range(count))
        more = kind[0] + ",".join(entries) + kind[1]
        return contract.replace("{", '{"more": ' + more + ",", 1).encode()

    contract = contract_text(tmp_path)
    read, refused = read_each(stand_in, [with_entries(1000), with_entries(1001)])
    assert read.startswith(b"read 48 32 3")
    assert b"more than 1000" in refused


def test_what_is_large_in_every_way_is_refused_soon(stand_in: Path, tmp_path: Path) -> None:
    table = "{" + ",".join(f'"{index}":0' for index in range(1000)) + "}"
    wide = '{"x":[' + ",".join([table] * 110) + "]}"
    flat = '{"x":[' + ",".join("0" for _ in range(500_000)) + "]}"
    keys = "{" + ",".join(f'"{index}":0' for index in range(100_000)) + "}"
    texts = [text.encode() for text in (wide, flat, keys)]
    start = perf_counter()
    lines = read_each(stand_in, texts)
    assert all(max(map(len, texts)) <= 1 << 20 and b"contract.json" in line for line in lines)
    assert perf_counter() - start < 20  # a minute and more where every key is held against all


VALUES = [
    float("nan"),
    -1,
    0,
    1,
    48,
    48.0,
    1e308,
    1e-308,
    2**63,
    None,
    True,
    "",
    "\0",
    "道",
    [],
    {},
]
PARTS = re.compile(rb'"(?:[^"\\]|\\.)*"|[-0-9.eE+]+|[][{}:,]|[a-zA-Z]+')


def exchanged(random: Random, value: Any) -> Any:
    """Return the value with something in it left out, put in or exchanged."""
    keys = list(value) if isinstance(value, dict) else []
    keys = list(range(len(value))) if isinstance(value, list) else keys
    if not keys or random.random() < 0.1:
        return random.choice(VALUES)
    key, copy = random.choice(keys), value.copy()
    chance = random.random()
    if chance < 0.1:
        del copy[key]
    elif chance < 0.3 and isinstance(copy, dict):
        copy[f"more {chance}"] = random.choice(VALUES)
    elif chance < 0.3:
        copy.insert(key, random.choice([*VALUES, copy[key]]))
    else:
        copy[key] = exchanged(random, copy[key])
    return copy


def damaged(random: Random, content: bytes) -> bytes:
    parts = PARTS.findall(content)
    at, other = random.randrange(len(parts)), random.randrange(len(parts))
    parts[at : at + random.randint(0, 6)] = random.choice(
        [[bytes([random.randrange(256)])], parts[other : other + 6], [parts[at]] * 2]
    )
    return b"".join(parts)


def test_what_the_header_reads_of_damaged_contracts_is_json_of_that_content(
    stand_in: Path, tmp_path: Path
) -> None:
    random, contract = Random(7), json.loads(contract_text(tmp_path))
    texts = []
    for index in range(4000):
        table = contract
        for _ in range(random.randint(1, 2)):
            table = exchanged(random, table)
        content = json.dumps(table, ensure_ascii=bool(index % 2)).encode()
        texts.append(damaged(random, content) if index % 4 == 0 else content)
    accepted = 0
    for text, line in zip(texts, read_each(stand_in, texts), strict=True):
        if not line.startswith(b"read "):
            assert line.startswith(b"contract.json"), line
            continue
        accepted += 1
        table = json.loads(text.decode("utf-8", "surrogateescape"))
        assert table["version"] == 1
        told = (table["input"]["width"], table["output"]["height"], len(table["classes"]))
        assert line.split()[1:4] == [b"%d" % number for number in told]
    assert 400 < accepted < 3000  # neither hopeless damage nor none


def test_frames_that_cannot_be_are_refused_in_one_line(stand_in: Path, tmp_path: Path) -> None:
    plan = empty_plan(output=OutputSpec("logits"))
    plan = plan.with_artifact("cpu-fp32", b"", io={"logits": "float32 NCHW"})
    write_contract(plan.manifest, plan.manifest.artifacts[0], tmp_path)
    told = [
        "a frame of 0x10; sides are 1 to 32767 pixels",
        "a frame of 10x-1; sides are 1 to 32767 pixels",
        "a frame of 32768x1; sides are 1 to 32767 pixels",
        "a frame without pixels",
        "rows of 10 pixels that are 29 bytes apart; at least 30",
        "rows of 10 pixels that are -29 bytes apart; at least 30",
    ]
    # Of each what infer() says, then overlay().
    lines = call(stand_in, "frames", tmp_path).decode().splitlines()
    assert lines == [line for line in told for _ in range(2)]


def test_a_contract_of_before_the_backend_was_named_is_read(stand_in: Path, tmp_path: Path) -> None:
    file = extracted(tmp_path) / "contract.json"
    file.write_text(file.read_text("utf-8").replace(' "backend": "onnxruntime",\n', ""), "utf-8")
    assert call(stand_in, "show", file.parent).decode().splitlines()[1] == "model.onnx "


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
