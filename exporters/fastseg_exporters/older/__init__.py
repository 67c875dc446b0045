"""The doors that older code knows: ModelOptimizer, TensorRTOptimizer. Imports onnx, tensorrt."""
