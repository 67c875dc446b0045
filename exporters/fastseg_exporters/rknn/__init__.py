"""Networks for Rockchip's NPUs, made and simulated by their toolkit in an environment of its own.

Imports convert, gate (for the referee's environment), onnx.
"""
