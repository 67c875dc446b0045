import copy
import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fastseg_runtime.bundle.manifest import Artifact
from remote_bench.host.errors import MissingRequirement
from remote_bench.run import wheels
from remote_bench.run.wheels import fetch_wheels, missing_packages, pip_command

PROBE = {
    "python": {
        "version": "3.11.2",
        "implementation": "CPython",
        "platform": "linux-aarch64",
        "libc": "glibc 2.36",
        "modules": {
            "numpy": None,
            "onnxruntime": None,
            "tensorrt": None,
            "ai_edge_litert": None,
            "tflite_runtime": None,
        },
    }
}


def board(modules=(), **python):
    probe = copy.deepcopy(PROBE)
    probe["python"].update(python)
    probe["python"]["modules"].update({name: "1.0" for name in modules})
    return probe


def artifact(form: str, backend: str | None = None) -> Artifact:
    requires = {"backend": backend} if backend else {}
    return Artifact("t", form, "fp32", "x", (), requires=requires)


@pytest.mark.parametrize(
    ("modules", "formats", "expected"),
    [
        ((), ("onnx",), ["numpy", "onnxruntime"]),
        (("numpy",), ("onnx",), ["numpy", "onnxruntime"]),
        (("onnxruntime",), ("onnx",), ["numpy"]),
        (("numpy", "onnxruntime"), ("tflite", "onnx"), []),
        ((), ("tflite",), ["numpy", "ai-edge-litert"]),
        (("tflite_runtime", "numpy"), ("tflite",), []),
        (("numpy",), ("coreml",), []),
    ],
)
def test_a_board_gets_what_it_lacks_to_run_one_of_the_artifacts(modules, formats, expected):
    assert missing_packages(board(modules), [artifact(form) for form in formats]) == expected


RKNN = ["rknn-toolkit-lite2", "psutil", "ruamel-yaml"]


@pytest.mark.parametrize("formats", [("rknn", "onnx"), ("onnx", "rknn")])
@pytest.mark.parametrize(
    ("facts", "npu"),
    [({}, RKNN), ({"platform": "linux-x86_64"}, []), ({"version": "3.13.1"}, [])],
)
def test_beside_an_npus_engine_comes_one_for_boards_without_it(formats, facts, npu):
    brought = missing_packages(board(**facts), [artifact(form) for form in formats])
    assert brought == ["numpy", "onnxruntime", *npu]


def test_an_npus_artifact_alone_asks_for_its_engine_wherever_it_is_sent():
    for platform in ("linux-aarch64", "linux-x86_64"):
        assert missing_packages(board(platform=platform), [artifact("rknn")]) == ["numpy", *RKNN]


TENSORRT = ("numpy", "tensorrt")
ONNXRUNTIME = ("numpy", "onnxruntime")


@pytest.mark.parametrize(
    ("modules", "backend", "named", "expected"),
    [
        (TENSORRT, "tensorrt", False, []),
        (TENSORRT, "onnxruntime", False, ["numpy", "onnxruntime"]),  # the runtime tries no other
        (TENSORRT, "onnxruntime", True, []),
        (("numpy",), "tensorrt", False, []),  # no wheel would help
        (("numpy",), "tensorrt", True, ["numpy", "onnxruntime"]),
        (ONNXRUNTIME, "tensorrt", True, []),
    ],
)
def test_an_engine_that_the_runtime_would_not_try_is_no_reason_to_bring_none(
    modules, backend, named, expected
):
    assert missing_packages(board(modules), [artifact("onnx", backend)], named) == expected


@pytest.mark.parametrize(
    ("module", "version", "brought"),
    [
        ("onnxruntime", "1.16.3", ["numpy", "onnxruntime"]),
        ("onnxruntime", "1.17.0", []),
        ("onnxruntime", "unknown", []),
        ("ai_edge_litert", "0.9", ["numpy", "ai-edge-litert"]),
        ("tflite_runtime", "2.5.0", ["numpy", "ai-edge-litert"]),  # newer than LiteRT 1.0 it is not
        ("tflite_runtime", "2.14.0", []),
    ],
)
def test_an_engine_that_is_too_old_for_the_artifact_is_as_good_as_none(module, version, brought):
    probe = board(("numpy", module))
    probe["python"]["modules"][module] = version
    oldest = {"min_version": "1.17"}
    made = artifact("onnx")
    if module != "onnxruntime":
        made, oldest = artifact("tflite"), {"min_version": "1.0", "min_tflite_runtime": "2.14"}
    assert missing_packages(probe, [dataclasses.replace(made, requires=oldest)]) == brought


def test_a_python_that_the_runtime_does_not_run_on_is_declined_with_its_version():
    with pytest.raises(MissingRequirement, match=r"newest Python is 3.6.9; .* needs 3.8"):
        missing_packages(board(version="3.6.9"), [artifact("onnx")])


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "remote_bench/wheels"


def test_without_network_the_error_is_the_command_that_fetches_the_wheels(cache, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache))
    with pytest.raises(MissingRequirement) as missing:
        fetch_wheels(board(), ["numpy", "onnxruntime"])
    command = str(missing.value).split("run: ")[1]
    assert command.startswith(f"{sys.executable} -m pip download --no-deps --only-binary=:all:")
    assert "--platform manylinux_2_28_aarch64" in command
    assert f"--dest {cache}" in command
    assert command.endswith("numpy==2.4.6 onnxruntime==1.32.0")


def test_a_wheel_in_the_cache_is_taken_only_with_its_hash(cache, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    cache.mkdir(parents=True)
    (cache / "numpy-2.4.6-cp311-cp311-manylinux_2_28_aarch64.whl").write_bytes(b"forged")
    with pytest.raises(MissingRequirement, match="no numpy"):
        fetch_wheels(board(), ["numpy"])


def test_the_cache_serves_without_pip(cache, monkeypatch):
    cache.mkdir(parents=True)
    content = b"a wheel"
    (cache / "numpy-1.0-any.whl").write_bytes(content)
    import hashlib

    pins = {"numpy": ("1.0", hashlib.sha256(content).hexdigest())}
    monkeypatch.setattr(wheels, "_pins", lambda probe: pins)
    monkeypatch.setattr(wheels.subprocess, "run", lambda *_, **__: pytest.fail("pip was run"))
    assert [wheel.name for wheel in fetch_wheels(board(), ["numpy"])] == ["numpy-1.0-any.whl"]


@pytest.mark.parametrize(
    "python",
    [
        {"libc": None},
        {"libc": "musl 1.2"},
        {"implementation": "PyPy"},
        {"platform": "linux-armv7l"},
        {"version": "3.20.0"},
    ],
)
def test_a_board_for_which_no_wheel_is_known_is_told_what_to_install(cache, python):
    with pytest.raises(MissingRequirement, match="install numpy and an engine on the board"):
        fetch_wheels(board(**python), ["numpy"])


def test_no_tag_that_is_newer_than_the_boards_c_library_is_asked_for():
    command = pip_command(board(libc="glibc 2.31", version="3.8.10"))
    tags = [word for word in command if word.startswith("manylinux")]
    assert tags[0] == "manylinux_2_31_aarch64" and tags[-1] == "manylinux2014_aarch64"
    assert "manylinux_2_34_aarch64" not in tags
    assert command[command.index("--abi") + 1] == "cp38"


@pytest.mark.slow
@pytest.mark.parametrize("minor", [8, 9, 10, 12, 13])
def test_the_pinned_wheels_of_a_python_import_side_by_side(cache, tmp_path, minor):
    found = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python3"))
    python = str(found[0]) if found else shutil.which(f"python3.{minor}")
    if python is None:
        pytest.skip(f"no Python 3.{minor} here")
    probe = board(version=f"3.{minor}.1", platform="linux-x86_64")
    site = tmp_path / "site"
    for wheel in fetch_wheels(probe, ["numpy", "onnxruntime"]):
        shutil.unpack_archive(wheel, site, "zip")
    code = "import numpy, onnxruntime; print(onnxruntime.get_available_providers())"
    done = subprocess.run(
        [python, "-c", code],
        env={"PYTHONPATH": str(site), "ORT_DISABLE_TELEMETRY": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert "CPUExecutionProvider" in done.stdout, done.stderr
