"""Everything that one run measured, and its JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

from compare_models.accuracy import Accuracy
from compare_models.export_cost import ExportCost
from compare_models.roofline import Peaks
from compare_models.scale import Point
from compare_models.speed import Row
from compare_models.timing import Ratio
from compare_models.training_speed import TrainingSpeed


@dataclass(frozen=True)
class TorchRow:
    """One torch module run by torch."""

    label: str
    latency_ms: float
    speedup: Ratio  # against the first of them


@dataclass
class Results:
    """What was asked for; the rest stays empty.

    Attributes:
        machine: from describe_machine().
        command: that made this.
        width: of the input, pixels.
        height: of the input, pixels.
        classes: K.
        threads: of ONNX Runtime.
        rounds: how often each graph was timed.
        rows: the comparison, the reference first.
    """

    machine: dict[str, str]
    command: str
    width: int
    height: int
    classes: int
    threads: int
    rounds: int
    rows: list[Row] = field(default_factory=list)
    peaks: Peaks | None = None
    torch_device: str = ""
    torch_rows: list[TorchRow] = field(default_factory=list)
    sizes: list[Point] = field(default_factory=list)
    batches: list[Point] = field(default_factory=list)
    accuracy: list[Accuracy] = field(default_factory=list)
    training: TrainingSpeed | None = None
    exports: list[ExportCost] = field(default_factory=list)

    def to_json(self) -> str:
        """Return one JSON document; what could not be had is null."""
        return json.dumps(_without_nan(dataclasses.asdict(self)), indent=1)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
