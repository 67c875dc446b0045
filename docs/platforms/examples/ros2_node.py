"""A ROS 2 node (Humble or newer): camera frames in, maps of class ids out, always the newest frame.

    python3 ros2_node.py --ros-args -p bundle:=street.fastseg -r image:=/camera/image_raw

Checked against stand-ins of rclpy and sensor_msgs; not run on a robot.
"""

from array import array

import numpy as np
import rclpy
from fastseg_runtime import RealtimeSegmentation
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4}


class Segmenter(Node):
    """Publishes `classes`, mono8 of the frame's size, with the frame's header."""

    def __init__(self):
        super().__init__("segmenter")
        self.encoding = self.declare_parameter("encoding", "rgb8").value
        bundle = self.declare_parameter("bundle", "street.fastseg").value
        # "never": a missing engine is an error now, not minutes of silence; see --prepare.
        self.seg = RealtimeSegmentation(bundle, color=self.encoding[:3], build="never")
        self.publisher = self.create_publisher(Image, "classes", 1)
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.create_subscription(Image, "image", self.segment, newest)

    def segment(self, image):
        """Answer a frame with its class map."""
        if image.encoding != self.encoding:
            fix = f"start with -p encoding:={image.encoding}"
            self.get_logger().error(f"frames are {image.encoding}; {fix}", throttle_duration_sec=5)
            return
        ids = array("B")  # any other type makes rclpy check every byte
        ids.frombytes(self.seg.infer(pixels(image)).data)
        size = {"height": image.height, "width": image.width, "step": image.width}
        self.publisher.publish(Image(header=image.header, encoding="mono8", data=ids, **size))


def pixels(image):
    """Return the frame (H, W, 3) without a copy: rows may be padded, alpha is left out."""
    count = CHANNELS[image.encoding]
    rows = np.frombuffer(image.data, np.uint8).reshape(image.height, image.step)
    return rows[:, : image.width * count].reshape(image.height, image.width, count)[..., :3]


if __name__ == "__main__":
    rclpy.init()
    try:
        rclpy.spin(Segmenter())
    except (KeyboardInterrupt, ExternalShutdownException):
        rclpy.try_shutdown()
