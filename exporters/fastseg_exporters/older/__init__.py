"""The doors that older code knows: ModelOptimizer and TensorRTOptimizer. Imports the formats."""
