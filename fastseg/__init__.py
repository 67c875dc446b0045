"""fastseg: a real-time segmentation network for edge devices and the data it learns from."""

__version__ = "0.1.0"
