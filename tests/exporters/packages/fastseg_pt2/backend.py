"""Runs .pt2 files. Importing this imports torch."""

from typing import Any

import torch
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.engines.backend import ModelSource


class Pt2Backend:
    """Runs model.pt2."""

    def open(self, source: ModelSource) -> None:
        """Load the program."""
        self._module: Any = torch.export.load(source.locate()).module()

    def infer(self, image_1HW3: Array) -> Array:
        """Run it once."""
        with torch.inference_mode():
            ids: Array = self._module(torch.from_numpy(image_1HW3)).numpy()
        return ids

    def close(self) -> None:
        """Free it."""
        self._module = None
