"""The loop of a robot with a CSI camera on a Jetson: newest frame in, where to steer out.

    python3 csi_loop.py street.fastseg

Needs the OpenCV of JetPack, which has GStreamer. Checked against a stand-in; not run on a Jetson.
"""

import sys

import cv2
from fastseg_runtime import RealtimeSegmentation, masks

# The camera's image processor gives NV12 in the GPU's memory; nvvidconv scales it in hardware, so
# that a network with "stretch" gets frames of its own size and nothing is resized on the CPU.
PIPELINE = (
    "nvarguscamerasrc sensor-id={sensor} ! "
    "video/x-raw(memory:NVMM), width=1280, height=720, format=NV12, framerate=30/1 ! "
    "nvvidconv ! video/x-raw, width={width}, height={height}, format=BGRx ! "
    "videoconvert ! video/x-raw, format=BGR ! appsink drop=true max-buffers=1 sync=false"
)


def frames(capture):
    """Yield frames (H, W, 3) BGR until the camera stops."""
    while True:
        there, frame = capture.read()
        if not there:
            return
        yield frame


def main(bundle, sensor=0):
    """Print where the middle of the road is until the camera stops."""
    with RealtimeSegmentation(bundle, color="bgr", build="never") as seg:
        road = [entry.name for entry in seg.classes].index("Road")
        pipeline = PIPELINE.format(sensor=sensor, width=seg.input.width, height=seg.input.height)
        capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
        if not capture.isOpened():
            raise SystemExit("no camera: is it plugged in, and has this OpenCV GStreamer?")
        try:
            for result in seg.stream(frames(capture), latest=True):
                area = masks.drivable_area(result.classes, road)
                middle = None if area is None else (area.left + area.right) / 2 / seg.input.width
                print(
                    f"frame {result.index}: road at {middle}, {result.dropped} dropped", flush=True
                )
        finally:
            capture.release()
    raise SystemExit("the camera gives no more frames")


if __name__ == "__main__":
    main(sys.argv[1])
