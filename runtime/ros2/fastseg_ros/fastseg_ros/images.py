"""Messages with pictures as arrays and back, without cv_bridge.

A message that is not what it says is a ValueError of one line.
"""

import os
from array import array
from typing import Any, Optional, Tuple

import numpy as np

Array = Any  # numpy's is generic from 3.9 on alone
# Channels and their order; OpenCV's types have its own order.
COLORS = {
    "rgb8": (3, "rgb"),
    "bgr8": (3, "bgr"),
    "rgba8": (4, "rgb"),
    "bgra8": (4, "bgr"),
    "8UC3": (3, "bgr"),
    "8UC4": (4, "bgr"),
}
DEEP_COLORS = {"rgb16": (3, "rgb"), "bgr16": (3, "bgr"), "rgba16": (4, "rgb"), "bgra16": (4, "bgr")}
GREYS = {"mono8": 1, "8UC1": 1, "mono16": 2, "16UC1": 2}  # bytes of a pixel
# Where Y, U and V of the first pixel of a pair lie in its four bytes.
PACKED = {"yuyv": (0, 1, 3), "yuv422_yuy2": (0, 1, 3), "uyvy": (1, 0, 2), "yuv422": (1, 0, 2)}
PLANAR = {"nv12": (0, 1), "nv21": (1, 0)}  # where U and V lie in a pair of the second plane
ENCODINGS = (*COLORS, *DEEP_COLORS, *GREYS, *PACKED, *PLANAR)
MAX_PIXELS = 1 << 27  # of a compressed picture: what it says of itself may be anything


def frame_of(message: Any) -> Tuple[Array, str]:
    """Return the frame of a sensor_msgs/Image.

    Returns:
        uint8 (H, W, 3), a view of the message's own bytes where they are that, and the order of
        its channels, "rgb" or "bgr".

    Raises:
        ValueError: an encoding that is not known, or another number of bytes than it says.
    """
    height, width, encoding = message.height, message.width, message.encoding
    if not height or not width:
        raise ValueError(f"a frame of {width}x{height} pixels")
    if encoding in COLORS:
        count, order = COLORS[encoding]
        return _rows(message, width * count).reshape(height, width, count)[..., :3], order
    if encoding in DEEP_COLORS:
        count, order = DEEP_COLORS[encoding]
        return _high_bytes(message, width * count).reshape(height, width, count)[..., :3], order
    if encoding in GREYS:
        deep = GREYS[encoding] == 2
        grey_HW = _high_bytes(message, width) if deep else _rows(message, width)
        return np.repeat(grey_HW[..., None], 3, axis=2), "rgb"
    if encoding in PACKED:
        return _unpacked(message), "rgb"
    if encoding in PLANAR:
        return _from_planes(message), "rgb"
    advice = "; run image_proc's debayer before it" if encoding.startswith("bayer") else ""
    raise ValueError(f"encoding is {encoding!r}{advice or '; expected ' + ', '.join(ENCODINGS)}")


def _rows(message: Any, row_bytes: int, rows: Optional[int] = None) -> Array:
    """Return the rows of a message without their padding, uint8 (rows, row_bytes)."""
    rows, data = rows or message.height, np.frombuffer(message.data, np.uint8)
    if message.step < row_bytes:
        raise ValueError(
            f"step is {message.step} bytes; {message.width} pixels of {message.encoding} take "
            f"{row_bytes}"
        )
    if len(data) < rows * message.step:
        raise ValueError(f"{len(data)} bytes; {rows} rows of {message.step} are more")
    return data[: rows * message.step].reshape(rows, message.step)[:, :row_bytes]


def _high_bytes(message: Any, numbers: int) -> Array:
    """Return the upper half of each 16-bit number, uint8 (H, numbers)."""
    return _rows(message, 2 * numbers)[:, 0 if message.is_bigendian else 1 :: 2]


def _unpacked(message: Any) -> Array:
    height, width, encoding = message.height, message.width, message.encoding
    if width % 2:
        raise ValueError(f"a frame {width} pixels wide; {encoding} has pairs")
    rows = _rows(message, 2 * width)
    y, u, v = PACKED[encoding]
    cv2 = opencv()
    if cv2 is not None:  # a hundred times as fast
        code = cv2.COLOR_YUV2RGB_UYVY if y else cv2.COLOR_YUV2RGB_YUYV
        return cv2.cvtColor(rows.reshape(height, width, 2), code)
    pairs_HP4 = rows.reshape(height, -1, 4)
    y_HW = pairs_HP4[..., y::2].reshape(height, width)
    return yuv_to_rgb(y_HW, *(pairs_HP4[..., at].repeat(2, axis=1) for at in (u, v)))


def _from_planes(message: Any) -> Array:
    height, width, encoding = message.height, message.width, message.encoding
    if width % 2 or height % 2:
        raise ValueError(f"a frame of {width}x{height}; {encoding} has even sides")
    rows = _rows(message, width, height * 3 // 2)
    u, v = PLANAR[encoding]
    cv2 = opencv()
    if cv2 is not None:
        code = cv2.COLOR_YUV2RGB_NV21 if u else cv2.COLOR_YUV2RGB_NV12
        return cv2.cvtColor(rows, code)
    pairs_hw2 = rows[height:].reshape(height // 2, width // 2, 2)
    chroma_HW2 = pairs_hw2.repeat(2, axis=0).repeat(2, axis=1)
    return yuv_to_rgb(rows[:height], chroma_HW2[..., u], chroma_HW2[..., v])


def yuv_to_rgb(y_HW: Array, u_HW: Array, v_HW: Array) -> Array:
    """Return RGB of Y'CbCr as cameras send it: BT.601, Y from 16 to 235 (V4L2's default)."""
    y, u, v = (plane.astype(np.int32) for plane in (y_HW, u_HW, v_HW))
    y, u, v = 298 * np.maximum(y - 16, 0) + 128, u - 128, v - 128  # 256ths, and a half to round
    rgb = (y + 409 * v, y - 100 * u - 208 * v, y + 516 * u)
    return np.stack([np.clip(c >> 8, 0, 255) for c in rgb], axis=-1).astype(np.uint8)


def decoded(message: Any) -> Tuple[Array, str]:
    """Return the frame of a sensor_msgs/CompressedImage, as frame_of() does.

    Raises:
        ValueError: it holds no picture, or one of distances.
    """
    if "compressedDepth" in message.format:
        raise ValueError(f"format is {message.format!r}, which are distances; expected colours")
    cv2 = opencv()
    if cv2 is None:
        raise ValueError("compressed frames need OpenCV: apt install python3-opencv")
    try:
        frame_HW3 = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ValueError(f"OpenCV cannot read it: {' '.join(str(error).split())}") from error
    if frame_HW3 is None:
        raise ValueError(f"{len(message.data)} bytes of {message.format!r} that are no picture")
    return frame_HW3, "bgr"


def opencv() -> Optional[Any]:
    """Return OpenCV, None where there is none."""
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))  # read when it is loaded
    try:
        import cv2
    except ImportError:
        return None
    return cv2


def image_fields(pixels: Array, encoding: str) -> Any:
    """Return the fields of a sensor_msgs/Image but its header, of uint8 (H, W) or (H, W, 3)."""
    data = array("B")  # any other type makes rclpy check every byte
    data.frombytes(np.ascontiguousarray(pixels).data.cast("B"))
    height, width = pixels.shape[:2]
    step = data.buffer_info()[1] // height
    return {"height": height, "width": width, "encoding": encoding, "step": step, "data": data}
