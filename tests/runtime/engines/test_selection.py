import sys
from pathlib import Path

import pytest
from fastseg_runtime.bundle.manifest import Artifact, Manifest
from fastseg_runtime.engines import selection
from fastseg_runtime.engines.engine import ENGINES, Engine
from fastseg_runtime.engines.selection import (
    Processor,
    is_at_least,
    made_for,
    probe,
    rank,
    this_processor,
    version_number,
)
from fastseg_runtime.engines.tensorrt.cuda import CudaError

from tests.doubles.tiny_bundle import empty_plan

X86 = Processor(arm=False, int8_dot_product=False)
X86_VNNI = Processor(arm=False, int8_dot_product=True)
ARM = Processor(arm=True, int8_dot_product=True)


def bundle() -> Manifest:
    """A bundle for everything."""
    plan = empty_plan()
    for target, format, precision, backend in [
        ("cpu-fp32", "onnx", "fp32", "onnxruntime"),
        ("cpu-int8", "onnx", "int8", "onnxruntime"),
        ("android-int8", "tflite", "int8", "litert"),
        ("android-fp32", "tflite", "fp32", "litert"),
        ("ios-fp16", "coreml", "fp16", "coreml"),
        ("jetson-fp16", "onnx", "fp16", "tensorrt"),
        ("jetson-int8", "onnx", "int8", "tensorrt"),
    ]:
        plan = plan.with_artifact(
            target, target.encode(), format, precision=precision, requires={"backend": backend}
        )
    return plan.manifest


def order(processor: Processor, **wish: str) -> list[str]:
    return [candidate.artifact.target for candidate in rank(bundle(), processor, **wish)]


def test_accelerators_come_before_the_cpu() -> None:
    assert order(X86)[:3] == ["jetson-int8", "jetson-fp16", "ios-fp16"]


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        (X86, ["cpu-fp32", "cpu-int8", "android-fp32", "android-int8"]),
        (X86_VNNI, ["cpu-int8", "cpu-fp32", "android-int8", "android-fp32"]),
        (ARM, ["android-int8", "android-fp32", "cpu-int8", "cpu-fp32"]),
    ],
)
def test_the_cpus_order_follows_its_kind_and_instructions(
    processor: Processor, expected: list[str]
) -> None:
    assert order(processor)[3:] == expected


@pytest.mark.parametrize(
    ("instructions", "first"),
    [
        ({"avx512_bf16", "avx512_vnni"}, ["intel-int8", "cpu-int8", "intel-bf16", "cpu-fp32"]),
        ({"avx_vnni"}, ["intel-int8", "cpu-int8", "cpu-fp32", "intel-bf16"]),
        ({"avx512f"}, ["cpu-fp32", "cpu-int8", "intel-bf16", "intel-int8"]),
    ],
)
def test_openvino_comes_before_onnx_runtime_where_the_cpu_computes_in_its_precision(
    instructions: set[str], first: list[str]
) -> None:
    plan = empty_plan()
    for target in ("cpu-fp32", "cpu-int8", "intel-bf16", "intel-int8"):
        family, _, precision = target.partition("-")
        requires = {"backend": {"cpu": "onnxruntime", "intel": "openvino"}[family]}
        plan = plan.with_artifact(target, b"x", "onnx", precision=precision, requires=requires)
    vnni = bool({"avx_vnni", "avx512_vnni"} & instructions)
    found = rank(plan.manifest, Processor(False, vnni, frozenset(instructions)))
    assert [candidate.artifact.target for candidate in found] == first


def test_device_cpu_leaves_tensorrt_out() -> None:
    assert "jetson-fp16" not in order(X86, device="cpu")


def test_a_named_backend_takes_what_was_made_for_it_first_then_what_else_it_opens() -> None:
    assert order(X86, backend="onnxruntime") == [
        "cpu-fp32",
        "cpu-int8",
        "jetson-fp16",
        "jetson-int8",
    ]


def test_a_named_target_may_run_on_any_backend_that_opens_its_format() -> None:
    candidates = rank(bundle(), X86, target="jetson-fp16")
    assert [candidate.backend for candidate in candidates] == [
        "tensorrt",
        "onnxruntime",
        "openvino",
    ]


def test_onnx_runtime_stands_in_for_tensorrt_before_an_engine_that_computes_its_own_way() -> None:
    has_all = Processor(False, True, frozenset({"avx512_bf16", "avx512_vnni"}))
    plan = empty_plan().with_artifact(
        "jetson-int8", b"", precision="int8", requires={"backend": "tensorrt"}
    )
    found = [candidate.backend for candidate in rank(plan.manifest, has_all, target="jetson-int8")]
    assert found == ["tensorrt", "onnxruntime", "openvino"]


def test_a_backend_from_elsewhere_is_offered_everything() -> None:
    assert len(order(X86, backend="their-engine")) == 7


def test_an_artifact_without_requirements_runs_where_its_format_runs() -> None:
    assert made_for(Artifact("t", "onnx", "fp32", "m", ())) == "onnxruntime"
    assert made_for(Artifact("t", "tflite", "fp32", "m", ())) == "litert"
    assert made_for(Artifact("t", "theirs", "fp32", "m", ())) == "theirs"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags\t\t: fpu avx2 avx512_vnni sse", True),
        ("flags\t\t: fpu avx2 sse", False),
        ("Features\t: fp asimd asimddp", True),  # Cortex-A76, Raspberry Pi 5
        ("Features\t: fp asimd crc32", False),  # Cortex-A72, Raspberry Pi 4
    ],
)
def test_int8_instructions_are_read_from_cpuinfo(text: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert this_processor(tmp_path / "cpuinfo").int8_dot_product is expected


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A backend "theirs" whose module and engine library are files of the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    theirs = Engine(
        "theirs",
        "their_backend:Backend",
        modules=("their_engine",),
        install="pip install their-engine",
    )
    monkeypatch.setitem(ENGINES, "theirs", theirs)
    (tmp_path / "their_backend.py").write_text("import their_engine\nclass Backend: pass\n")
    yield tmp_path
    for name in ("their_engine", "their_backend"):
        sys.modules.pop(name, None)


def test_a_library_that_is_there_is_usable_and_tells_its_version(library: Path) -> None:
    (library / "their_engine.py").write_text("__version__ = '1.2'")
    found = probe("theirs")
    assert found.usable
    assert found.version == "1.2"


def test_an_absent_library_comes_with_the_command_that_adds_it(library: Path) -> None:
    found = probe("theirs")
    assert not found.usable
    assert found.reason == "their_engine is not installed"
    assert found.fix == "pip install their-engine"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ImportError('libengine.so.3: cannot open shared object file')", "libengine"),
        ("import something_it_needs", "No module named 'something_it_needs'"),
        ("raise OSError('invalid ELF header')", "invalid ELF header"),
        ("raise RuntimeError('compiled for another numpy')", "another numpy"),
    ],
)
def test_a_broken_library_is_told_apart_from_an_absent_one(
    code: str, reason: str, library: Path
) -> None:
    (library / "their_engine.py").write_text(code)
    found = probe("theirs")
    assert not found.usable and found.broken
    assert "their_engine is installed but does not load" in found.reason
    assert reason in found.reason
    assert found.fix == "pip install their-engine --force-reinstall"


def test_tensorrt_is_not_proposed_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_gpu() -> None:
        raise CudaError("the driver sees no GPU")

    monkeypatch.setattr(selection, "open_cuda", no_gpu)
    found = probe("tensorrt")
    assert (found.usable, found.reason, found.fix) == (False, "the driver sees no GPU", "")


@pytest.mark.skipif(sys.platform == "darwin", reason="this is a Mac")
def test_core_ml_is_for_macs_alone() -> None:
    assert probe("coreml").reason == "runs on darwin alone"


def test_versions_compare_as_numbers() -> None:
    assert version_number("1.10.0rc1") > version_number("1.9")
    assert version_number("") == ()


@pytest.mark.parametrize(
    ("version", "minimum", "enough"),
    [
        ("1.17.0", "1.17", True),
        ("1.17", "1.17.0", True),
        ("1.17.0rc1", "1.17", False),
        ("1.17.0.dev20240101", "1.17", False),
        ("1.17-beta2", "1.17", False),
        ("1.17.1rc1", "1.17", True),
        ("1.18.0.dev20240101", "1.17", True),
        ("1.17.0.post1", "1.17", True),
        ("1.17.0+cu118", "1.17", True),
        ("1.9.0", "1.17", False),
        ("1.16.3", "1.17", False),
        ("nightly", "1.17", False),
        ("1.0", "", True),
    ],
)
def test_a_version_before_the_oldest_that_was_run_is_not_enough(
    version: str, minimum: str, enough: bool
) -> None:
    assert is_at_least(version, minimum) is enough


def test_a_library_that_does_not_tell_its_version_has_it_from_its_installation(
    library: Path,
) -> None:
    (library / "their_engine.py").write_text("")
    assert probe("theirs").version == ""
    information = library / "their_engine-3.2.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: their-engine\nVersion: 3.2")
    assert probe("theirs").version == "3.2"
