"""The ROS 2 package on stand-ins of rclpy and of messages; ROS is not here."""

import importlib
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.doubles import ros2_double
from tests.doubles.ros2_double import Header, Image, Stamp

PACKAGE = Path(__file__).parents[3] / "runtime/ros2/fastseg_ros"
HEADER = Header(stamp=Stamp(sec=17, nanosec=4), frame_id="front")


def image_message(rows: Any, width: int, encoding: str, padding: int = 0, big: int = 0) -> Any:
    """Return a sensor_msgs/Image of the bytes of each row, uint8 (rows, bytes)."""
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    height = len(rows) * 2 // 3 if encoding in ("nv12", "nv21") else len(rows)
    data = array("B", padded.tobytes())
    sizes = {"height": height, "width": width, "step": padded.shape[1]}
    return Image(header=HEADER, encoding=encoding, is_bigendian=big, data=data, **sizes)


@pytest.fixture(scope="package")
def ros() -> Iterator[None]:
    """Put the stand-ins and the package where imports find them."""
    with pytest.MonkeyPatch.context() as patch:
        for stand_in in ros2_double.modules():
            patch.setitem(sys.modules, stand_in.__name__, stand_in)
        patch.syspath_prepend(str(PACKAGE))
        yield
        for name in [name for name in sys.modules if name.partition(".")[0] == "fastseg_ros"]:
            del sys.modules[name]


@pytest.fixture(scope="package")
def images(ros: None) -> Any:
    """Return fastseg_ros.images."""
    return importlib.import_module("fastseg_ros.images")


@pytest.fixture(scope="package")
def segmenter(ros: None) -> Any:
    """Return fastseg_ros.segmenter."""
    return importlib.import_module("fastseg_ros.segmenter")
