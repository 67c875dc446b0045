"""TensorRT: built on the device, kept in a cache, run through CUDA by ctypes.

For the room engines; `fastseg-run --cache` lists the cache, and TensorRTOptimizer of the exporters
builds here. Imports arrays, bundle, and from engines the contract and the records.
"""
