"""A lifecycle node of ROS 2 around fastseg_runtime."""
