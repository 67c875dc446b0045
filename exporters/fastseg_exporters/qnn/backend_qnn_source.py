"""QNN files without a Snapdragon: the graph that one was compiled from, in ONNX Runtime.

Only an export has it at hand. The referee runs a frame of the compiled network itself, which takes
Qualcomm's simulator seconds.
"""

from dataclasses import replace

from fastseg_runtime.engines.backend import ModelSource
from fastseg_runtime.engines.backend_onnxruntime import OnnxRuntimeBackend

from fastseg_exporters.convert.exporter import FOR_GATE


class SourceBackend(OnnxRuntimeBackend):
    """A runtime backend (fastseg_runtime.engines.backend.Backend)."""

    def open(self, source: ModelSource) -> None:
        """Open the graph in the place of what was compiled of it.

        Raises:
            ValueError: the artifact was taken out of its export.
        """
        file = source.locate()
        graph = file.parent / FOR_GATE / file.name
        if not graph.is_file():
            raise ValueError(
                "the graph that it was compiled from is not in a bundle; the verification in its "
                "manifest is what was found at its export"
            )
        super().open(replace(source, read=lambda member: graph.read_bytes()))
