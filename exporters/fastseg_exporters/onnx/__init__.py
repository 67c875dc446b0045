"""ONNX, float and int8. Imports convert and gate."""
