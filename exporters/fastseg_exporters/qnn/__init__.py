"""Networks compiled for Qualcomm's NPU by ONNX Runtime's provider, in an environment of its own.

Imports convert, gate (for the referee's environment), onnx.
"""
