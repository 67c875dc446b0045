"""ONNX, float and int8, as ONNX Runtime runs it fastest; tensorrt and older use it too.

Imports convert, and of gate how a network is described.
"""
