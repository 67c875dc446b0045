"""How a network was named, as plain data that a child process can open again."""

from dataclasses import dataclass
from pathlib import Path

from fastseg_runtime.bundle.manifest import ClassInfo

from fastseg import Network, open_network
from fastseg.normalization import Normalization


@dataclass(frozen=True)
class NetworkSource:
    """The arguments of fastseg.open_network."""

    spec: str
    classes: tuple[ClassInfo, ...] | None = None
    weights: str | None = None
    size: tuple[int, int] | None = None
    normalization: Normalization | None = None
    output_name: str = ""
    threshold: float = 0.5

    def open(self) -> Network:
        """Open the network; see open_network for the errors."""
        weights = None if self.weights is None else Path(self.weights)
        return open_network(
            self.spec,
            self.classes,
            weights,
            self.size,
            self.normalization,
            self.output_name,
            self.threshold,
        )
