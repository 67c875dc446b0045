"""ONNX as TensorRT takes it; the engine is built on the device. Imports convert and onnx."""
