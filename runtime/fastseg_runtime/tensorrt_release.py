"""Which TensorRT this is and how it takes a precision; asked of the module, never assumed.

Functions take the tensorrt module as their first argument, so that only backends import it.
"""

import re
from dataclasses import dataclass
from typing import Any, Tuple

from fastseg_runtime.tensorrt_errors import TensorRTError

OLDEST = (8, 5)  # the first with set_tensor_address and execute_async_v3
# Every call we make was checked against NVIDIA's binding modules of these, on no real device.
CHECKED = ((8, 6), (10, 0), (10, 3), (10, 13), (10, 16), (11, 4))


@dataclass(frozen=True)
class Release:
    """What the builder needs to know of a TensorRT."""

    version: str  # as the module says it, "10.3.0"
    strongly_typed: bool  # precision comes with the graph; else with builder flags
    checked: bool  # against the API record of this major.minor


def probe_release(trt: Any) -> Release:
    """Identify a tensorrt module.

    Raises:
        TensorRTError: it is too old; the message says what runs instead.
    """
    version = str(trt.__version__)
    number = version_number(version)
    if number < OLDEST:
        raise TensorRTError(
            f"TensorRT {version} is too old: fastseg needs {OLDEST[0]}.{OLDEST[1]} or newer. "
            + _advice(number)
        )
    return Release(
        version=version,
        strongly_typed=not hasattr(trt.BuilderFlag, "FP16"),
        checked=number[:2] in CHECKED,
    )


def version_number(version: str) -> Tuple[int, ...]:
    """Return "8.5.2.2+cuda11" as (8, 5, 2, 2)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def _advice(number: Tuple[int, ...]) -> str:
    if number < (8, 4):
        return (
            "JetPack 4 (Jetson Nano, TX2: TensorRT 8.2, Python 3.6) cannot run it; "
            "use a cpu-int8 artifact on a newer Python, or a board with JetPack 5.1 or newer"
        )
    return "JetPack 5.1 brings TensorRT 8.5: update JetPack"
