from pathlib import Path

import pytest
from fastseg_runtime.bundle.manifest import Artifact, Manifest
from fastseg_runtime.engines.selection import Processor, made_for, rank, this_processor

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
    assert [candidate.backend for candidate in candidates] == ["tensorrt", "onnxruntime"]


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
