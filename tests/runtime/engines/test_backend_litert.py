import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert (make test-slow installs it)")

from fastseg_runtime import NoBackendError, RealtimeSegmentation

from tests.doubles.tiny_bundle import HEIGHT, WIDTH, empty_plan, noise, strongest_channel
from tests.doubles.tiny_tflite import argmax_tflite, logits_tflite


def write(folder: Path, content: bytes, **fields: Any) -> Path:
    fields = {"requires": {"backend": "litert"}, **fields}
    plan = empty_plan().with_artifact("android-int8", content, "tflite", **fields)
    return plan.write(folder / "tiny.fastseg")


@pytest.mark.parametrize("image", ["uint8", "int8", "float32"])
@pytest.mark.parametrize("classes", ["uint8", "int32"])
def test_every_kind_of_input_and_output_gives_the_same_ids(
    image: str, classes: str, tmp_path: Path
) -> None:
    model = argmax_tflite(WIDTH, HEIGHT, image, classes)
    path = write(tmp_path, model, io={"image": f"{image} NHWC", "classes": classes})
    with RealtimeSegmentation(path) as session:
        assert session.info.backend == "litert"
        for seed in range(3):
            frame = noise(seed=seed)
            assert np.array_equal(session.infer(frame), strongest_channel(frame))


def test_float_inputs_are_normalised_as_the_manifest_says(tmp_path: Path) -> None:
    io = {"image": "float32 NHWC", "logits": "float32 NHWC"}
    path = write(tmp_path, logits_tflite(WIDTH, HEIGHT), io=io)
    frame = noise()
    with RealtimeSegmentation(path) as session:
        expected = np.floor((frame.astype(np.float32) - 128) / 64).transpose(2, 0, 1)
        assert np.array_equal(session.logits(frame), expected)


def test_a_model_of_another_kind_than_promised_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, argmax_tflite(WIDTH, HEIGHT, "int8"))
    with pytest.raises(NoBackendError, match="promises an input of uint8 NHWC.* takes int8"):
        RealtimeSegmentation(path)


def test_a_device_that_it_has_not_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, argmax_tflite(WIDTH, HEIGHT))
    with pytest.raises(NoBackendError, match="litert: no device 'cuda'"):
        RealtimeSegmentation(path, device="cuda")


def test_no_array_is_allocated_per_frame_when_out_is_given(tmp_path: Path) -> None:
    plan = empty_plan(256, 128).with_artifact(
        "android-int8",
        argmax_tflite(256, 128, "int8"),
        "tflite",
        requires={"backend": "litert"},
        io={"image": "int8 NHWC", "classes": "uint8"},
    )
    with RealtimeSegmentation(plan.write(tmp_path / "l.fastseg")) as session:
        frame, out = noise(128, 256), np.empty((128, 256), np.uint8)
        session.infer(frame, out)
        tracemalloc.start()
        try:
            for _ in range(5):
                session.infer(frame, out)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak_bytes < 20_000  # the smallest array here has 32,768 bytes
