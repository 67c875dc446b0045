"""RKNN: .rknn artifacts on Rockchip's NPUs, by their RKNNLite and the board's librknnrt.so."""

from typing import Any, Optional

from rknnlite.api import RKNNLite

from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.engines.backend import ModelSource


class RknnBackend:
    """A network on the NPU, which takes bytes and gives logits."""

    def __init__(self) -> None:
        self._lite: Optional[Any] = None

    def open(self, source: ModelSource) -> None:
        """Load the model; `device` is "auto" or "npu".

        Raises:
            ValueError: another device.
            RuntimeError: it is for another chip, or the board's driver does not take it.
        """
        if source.device not in ("auto", "npu"):
            raise ValueError(f"rknn: no device {source.device!r}; choose npu")
        self._lite = lite = RKNNLite()
        for step in (lambda: lite.load_rknn(str(source.locate())), lite.init_runtime):
            if step() != 0:  # why, it has printed
                chip = source.artifact.extra.get("chip")
                raise RuntimeError(f"RKNNLite does not open it; it was made for {chip}")

    def infer(self, image_1HW3: Array) -> Array:
        """Run the network; see Backend.infer."""
        if self._lite is None:
            raise RuntimeError("the session is closed; open the model again")
        outputs = self._lite.inference(inputs=[image_1HW3], data_format=["nhwc"])
        if not outputs:
            raise RuntimeError("RKNNLite gave nothing; why, it has printed")
        logits_1Khw: Array = outputs[0]
        return logits_1Khw

    def close(self) -> None:
        """Free the NPU."""
        if self._lite is not None:
            self._lite.release()
        self._lite = None
