"""The C++ example of TensorRT against generated headers and a double; no GPU has run it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from fastseg_runtime.bundle.contract import write_contract

from tests.doubles.tensorrt_double import read_record, releases
from tests.doubles.tensorrt_headers import MEMBERS, build_libraries, write_headers
from tests.doubles.tiny_bundle import HEIGHT, WIDTH, full_plan, noise, strongest_channel

SOURCES = Path(__file__).parents[3] / "runtime/cpp"
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", "-Wshadow"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
TENSORS = f"image input uint8 1 {HEIGHT} {WIDTH} 3\nclasses output uint8 1 {HEIGHT} {WIDTH}\n"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not releases(), reason="FASTSEG_TENSORRT_API is not set"),
    pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake and g++"),
]


@pytest.fixture(scope="module", params=[*releases()[:1], *releases()[-1:]])
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built as its page says; beside it, the engine file of its release."""
    prefix = tmp_path_factory.mktemp("tensorrt")
    write_headers(read_record(request.param), prefix / "include")
    build_libraries(prefix, *WARNINGS, *SANITIZERS)
    flags = " ".join([*WARNINGS, *SANITIZERS])
    options = [f"-DCMAKE_PREFIX_PATH={prefix}", f"-DCMAKE_CXX_FLAGS_RELEASE={flags}"]
    target = ["--target", "fastseg_tensorrt"]
    for command in (["-S", SOURCES, "-B", prefix, *options], ["--build", prefix, *target]):
        done = subprocess.run(["cmake", *command], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    (prefix / "model.engine").write_text(f"{request.param}\n{TENSORS}")
    plan = full_plan()
    write_contract(plan.manifest, plan.manifest.artifacts[0], prefix)
    return prefix / "fastseg_tensorrt"


def call(
    example: Path, engine: Path, given: bytes = b"", fault: str = ""
) -> subprocess.CompletedProcess[bytes]:
    command = [example, example.parent, "ids", engine]
    environment = {**os.environ, "FAULT": fault}
    return subprocess.run(command, input=given, capture_output=True, env=environment, timeout=60)


def test_the_example_gives_the_ids_of_the_network(example: Path) -> None:
    frames = [noise(seed=index) for index in range(3)]
    head = b"P6\n%d %d\n255\n" % (WIDTH, HEIGHT)
    given = b"".join(head + frame.tobytes() for frame in frames)
    done = call(example, example.with_name("model.engine"), given)
    head = b"P5\n%d %d\n255\n" % (WIDTH, HEIGHT)
    expected = [head + strongest_channel(frame).tobytes() for frame in frames]
    assert (done.returncode, done.stdout) == (0, b"".join(expected)), done.stderr
    assert len(done.stderr.splitlines()) == 3  # the times, and nothing left over


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("createInferRuntime", "TensorRT does not start"),
        ("createExecutionContext", "no memory for the engine"),
        ("setTensorAddress", "placing tensor image"),
        ("enqueueV3", "running the engine failed: no reason given"),
        ("kernel", "running the engine failed: invalid argument"),
        ("cudaMalloc", "allocating GPU memory failed: out of memory"),
        ("cudaHostAlloc", "allocating pinned memory failed: out of memory"),
        ("cudaStreamCreateWithFlags", "making a stream failed: out of memory"),
        ("upload", "copying a frame to the GPU failed"),
        ("download", "copying ids from the GPU failed"),
    ],
)
def test_a_call_that_fails_is_told_in_one_line_and_leaves_nothing(
    example: Path, fault: str, told: str
) -> None:
    frame = b"P6\n%d %d\n255\n" % (WIDTH, HEIGHT) + noise().tobytes()
    done = call(example, example.with_name("model.engine"), frame, fault)
    (line,) = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (1, b"")
    assert told in line


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (TENSORS, "", "tensor image is not what contract.json says"),
        ("image input", "picture input", "tensor image is not what"),
        ("classes output", "labels output", "tensor classes is not what"),
        ("image input", "image output", "tensor image is not what"),
        ("uint8 1 32 48 3", "uint8 1 32 64 3", "tensor image is not what"),
        ("uint8 1 32 48\n", "float 1 32 48\n", "tensor classes is not uint8"),
        ("uint8 1 32 48 3", "uint8 -1 32 48 3", "tensor image is not uint8 of a fixed size"),
        ("8.6.1\n", "10.3.0\n", "Error Code 1: Serialization"),
        ("11.4.0.106\n", "8.6.1\n", "Error Code 1: Serialization"),
    ],
)
def test_an_engine_of_something_else_is_refused_in_one_line(
    example: Path, tmp_path: Path, old: str, new: str, told: str
) -> None:
    text = example.with_name("model.engine").read_text()
    if old not in text:
        pytest.skip("another release")
    engine = tmp_path / "model.engine"
    engine.write_text(text.replace(old, new, 1))
    done = call(example, engine)
    (line,) = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (1, b"")
    assert told in line


def test_a_file_that_is_not_there_says_what_writes_it(example: Path, tmp_path: Path) -> None:
    assert b"trtexec --saveEngine" in call(example, tmp_path / "no.engine").stderr


def compiles(record: dict[str, object], folder: Path) -> str:
    write_headers(record, folder)
    source = str(SOURCES / "examples/tensorrt.cpp")
    command = ["g++", "-std=c++17", "-fsyntax-only", *WARNINGS, f"-I{folder}", source]
    return subprocess.run(command, capture_output=True, text=True, timeout=300).stderr


@pytest.mark.parametrize("version", releases()[1:-1])
def test_the_example_compiles_against_each_release_on_record(version: str, tmp_path: Path) -> None:
    assert compiles(read_record(version), tmp_path / "include") == ""


def test_what_a_release_has_not_does_not_compile(tmp_path: Path) -> None:
    record = read_record(releases()[0])
    without = {name: dict(members) for name, members in record["classes"].items()}
    for owner, member in MEMBERS:
        del without[owner][member]
    told = compiles({**record, "classes": without}, tmp_path / "include")
    for in_cpp in MEMBERS.values():
        assert in_cpp.split("(")[0].split()[-1].lstrip("*") in told
