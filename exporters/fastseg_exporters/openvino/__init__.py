"""ONNX for Intel's CPUs, as OpenVINO opens it.

Imports convert, and of onnx the files.
"""
