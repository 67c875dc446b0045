"""compare_models: networks side by side, in one run on one machine."""
