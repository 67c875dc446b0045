"""RKNN files without a board: Rockchip's simulator, in the environment of its referee.

It opens no .rknn, but builds the graph anew that one was made of, which only an export has at hand.
All chips compute the same in it, and it tells no time.
"""

import tempfile
from pathlib import Path

from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.engines.backend import ModelSource

from fastseg_exporters.convert.exporter import FOR_GATE
from fastseg_exporters.gate.referees.referee import REFEREES
from fastseg_exporters.gate.referees.toolchain import Toolchain
from fastseg_exporters.rknn.to_rknn import build


class SimulatorBackend:
    """A runtime backend (fastseg_runtime.engines.backend.Backend)."""

    def __init__(self) -> None:
        self._toolkit: Toolchain | None = None

    def open(self, source: ModelSource) -> None:
        """Build the network in the toolkit.

        Raises:
            ToolchainError: the toolkit is not here, or refuses.
            ValueError: the artifact was taken out of its export.
        """
        folder = source.locate().parent / FOR_GATE
        if not folder.is_dir():
            raise ValueError(
                "its simulator needs the graph that it was made of, which is not in a bundle; "
                "the verification in its manifest is what was simulated at its export"
            )
        self._toolkit = Toolchain(REFEREES["rknn"])
        try:
            with tempfile.TemporaryDirectory() as name:
                build(self._toolkit, folder, str(source.artifact.extra["chip"]), Path(name, "made"))
        except BaseException:  # nobody closes what did not open
            self.close()
            raise

    def infer(self, image_1HW3: Array) -> Array:
        """Return logits, float32 (1, K, h, w); see Backend.infer."""
        if self._toolkit is None:
            raise RuntimeError("the session is closed; open the model again")
        return self._toolkit.run(image_1HW3)

    def close(self) -> None:
        """End the toolkit."""
        if self._toolkit is not None:
            self._toolkit.close()
        self._toolkit = None
