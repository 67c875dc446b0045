"""TensorRT: built on the device, kept in a cache, run through CUDA by ctypes.

For engines alone, and whoever builds on a device; imports arrays and bundle.
"""
