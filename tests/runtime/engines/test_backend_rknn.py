"""RKNNLite, which runs on boards alone, by a double with the methods that version 2.5.0 has."""

import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastseg_runtime import NoBackendError, RealtimeSegmentation
from fastseg_runtime.engines.frame_runner import LogitsToClasses

from tests.doubles.tiny_bundle import empty_plan, noise

HEIGHT, WIDTH, CLASSES = 20, 28, 3  # no multiple of 8
LOGITS = (1, CLASSES, 3, 4)


class RKNNLite:
    """The NPU: scores are sums over tiles of the picture, at an eighth of its size."""

    loads, starts, gives, released = 0, 0, True, 0

    def __init__(self, verbose: bool = False, verbose_file: Any = None) -> None:
        self._content = b""

    def load_rknn(self, path: str, key_path: Any = None) -> int:
        self._content = Path(path).read_bytes()
        return self.loads

    def init_runtime(
        self,
        target: Any = None,
        device_id: Any = None,
        async_mode: bool = False,
        core_mask: int = 0,
    ) -> int:
        assert self._content == b"RKNN of a board"
        return self.starts

    def inference(
        self, inputs: list[Any], data_type: Any = None, data_format: Any = None
    ) -> list[Any] | None:
        assert data_format == ["nhwc"] and inputs[0].dtype == np.uint8
        assert inputs[0].shape == (1, HEIGHT, WIDTH, 3)
        return [logits_of(inputs[0])] if self.gives else None

    def release(self) -> None:
        type(self).released += 1


def logits_of(image_1HW3: Any) -> Any:
    padded = np.zeros((24, 32, 3), np.float32)
    padded[:HEIGHT, :WIDTH] = image_1HW3[0]
    return padded.reshape(3, 8, 4, 8, 3).sum((1, 3)).transpose(2, 0, 1)[None]


@pytest.fixture(autouse=True)
def board(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[RKNNLite]]:
    """Install the double, and give its class."""
    lite: Any = type("RKNNLite", (RKNNLite,), {})
    package, api = types.ModuleType("rknnlite"), types.ModuleType("rknnlite.api")
    api.RKNNLite = lite  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rknnlite", package)
    monkeypatch.setitem(sys.modules, "rknnlite.api", api)
    name = "fastseg_runtime.engines.backend_rknn"
    monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.import_module(name)
    yield lite
    monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    plan = empty_plan(WIDTH, HEIGHT).with_artifact(
        "rockchip-int8",
        b"RKNN of a board",
        "rknn",
        precision="int8",
        io={"image": "uint8 NHWC", "logits": "float32 NCHW"},
        requires={"backend": "rknn", "min_version": "2.5"},
        extra={"chip": "rk3588"},
    )
    return plan.write(tmp_path / "board.fastseg")


def test_logits_of_the_npu_become_the_class_map_that_the_graph_would_have_given(
    bundle: Path,
) -> None:
    with RealtimeSegmentation(bundle) as session:
        assert session.info.backend == "rknn"
        for seed in range(3):
            frame = noise(HEIGHT, WIDTH, seed)
            expected = LogitsToClasses((3, 4), (HEIGHT, WIDTH))(logits_of(frame[None])[0])
            assert np.array_equal(session.infer(frame), expected)
            assert session.logits(frame).shape == LOGITS[1:]


@pytest.mark.parametrize("step", ["loads", "starts"])
def test_a_file_for_another_chip_is_refused_by_the_chip_it_is_for(
    step: str, bundle: Path, board: Any
) -> None:
    setattr(board, step, -1)
    with pytest.raises(NoBackendError, match="does not open it; it was made for rk3588"):
        RealtimeSegmentation(bundle)
    assert board.released == 1


def test_an_npu_that_gives_nothing_is_an_error(bundle: Path, board: Any) -> None:
    with RealtimeSegmentation(bundle) as session:
        board.gives = False
        with pytest.raises(RuntimeError, match="RKNNLite gave nothing"):
            session.infer(noise(HEIGHT, WIDTH))


def test_another_device_is_refused_by_name(bundle: Path) -> None:
    with pytest.raises(NoBackendError, match="rknn: no device 'gpu'; choose npu"):
        RealtimeSegmentation(bundle, device="gpu")


def test_a_closed_session_has_freed_the_npu(bundle: Path, board: Any) -> None:
    session = RealtimeSegmentation(bundle)
    session.close()
    assert board.released == 1
