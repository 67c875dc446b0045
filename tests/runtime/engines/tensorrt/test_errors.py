"""Messages that TensorRT is known to write, and what becomes of them."""

import pytest
from fastseg_runtime.engines.tensorrt.errors import DIAGNOSES, Messages, explain

# As users quoted them in public reports.
SEEN = [
    ("Target GPU SM 87 is not supported by this TensorRT release.", "no kernels for this GPU"),
    ("CUDA initialization failure with error: 35", "cannot reach the GPU"),
    (
        "1: [stdArchiveReader.cpp::StdArchiveReader::32] Error Code 1: Serialization "
        "(Serialization assertion magicTagRead == kMAGIC_TAG failed.Magic tag does not match)",
        "another TensorRT",
    ),
    (
        "6: The engine plan file is not compatible with this version of TensorRT, expecting "
        "library version 8.5.2 got 8.4.1, please rebuild.",
        "another TensorRT",
    ),
    (
        "6: The engine plan file is generated on an incompatible device, expecting compute 8.7 "
        "got compute 8.6, please rebuild.",
        "another kind of GPU",
    ),
    ("In node 12 (parseGraph): UNSUPPORTED_NODE: No importer registered for op: Foo", "operation"),
    (
        "Assertion failed: shiftIsAllZeros(zeroPoint): TRT only supports symmetric quantization - "
        "zeroPt must be all zeros. zero_point",
        "not symmetric",
    ),
    (
        "4: [network.cpp::validate::2789] Error Code 4: Internal Error (Int8 precision has been "
        "set for a layer or layer output, but int8 is not configured in the builder)",
        "contradict",
    ),
    (
        "2: [utils.cpp::checkMemLimit::380] Error Code 2: Internal Error (Assertion "
        "upperBound != 0 failed. OutOfMemory)",
        "not enough memory",
    ),
    ("Requested amount of GPU memory (1073741824 bytes) could not be allocated.", "memory"),
    ("NvMapMemAllocInternalTagged: 1075072515 error 12", "not enough memory"),
    (
        "10: [optimizer.cpp::computeCosts::2011] Error Code 10: Internal Error (Could not find "
        "any implementation for node ArgMax_260.)",
        "no kernel could be timed",
    ),
]


@pytest.mark.parametrize(("message", "cause"), SEEN)
def test_a_known_failure_gets_a_cause_and_a_fix(message: str, cause: str) -> None:
    text = str(explain("building the engine", Messages(errors=[message])))
    assert cause in text.split("To do: ")[0]
    assert message in text


def test_every_diagnosis_has_a_message_that_it_explains() -> None:
    causes = [str(explain("", Messages(errors=[message]))) for message, _ in SEEN]
    assert [d for d in DIAGNOSES if not any(d.cause in text for text in causes)] == []


def test_an_error_counts_before_a_warning() -> None:
    messages = Messages(
        errors=["No importer registered for op: Foo"],
        warnings=["Skipping tactic 0 due to insufficient memory on requested size of 117"],
    )
    assert "operation" in str(explain("building the engine", messages))


def test_a_warning_explains_an_error_that_says_nothing() -> None:
    messages = Messages(
        errors=["2: [builder.cpp] Error Code 2: Internal Error (Assertion enginePtr failed. )"],
        warnings=["Skipping tactic 0 due to insuficient memory on requested size of 117"],
    )
    assert "not enough memory" in str(explain("building the engine", messages))


def test_an_unknown_failure_quotes_what_tensorrt_said_last() -> None:
    messages = Messages(errors=[f"message {number}" for number in range(9)])
    text = str(explain("building the engine", messages))
    assert "not one that fastseg knows" in text
    assert "message 8" in text and "message 4" not in text


def test_silence_is_an_unknown_failure_too() -> None:
    assert str(explain("running", Messages())).endswith("not one that fastseg knows.")
