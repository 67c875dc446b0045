"""ONNX as TensorRT takes it. Imports convert, gate and onnx."""
