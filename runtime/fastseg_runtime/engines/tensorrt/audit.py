"""Which precision the layers of a built engine really took, read with the engine inspector.

A builder may ignore what it was asked for without a word (a missing flag, a GPU without fast
half precision, a graph in another type); the engine then works, slowly. The inspector's JSON,
at ProfilingVerbosity.DETAILED, gives every layer's inputs with their "Format/Datatype", as in
"Channel major FP16 format where channel % 8 == 0" (8.x) or "Half" (10.x).
"""

import json
from dataclasses import dataclass
from typing import Any, Dict, Tuple

MIN_SHARE = 0.5  # of the convolutions: the rest may be faster in float, the builder measured it
_NAMES = (("int8", ("int8",)), ("fp16", ("half", "fp16")), ("fp32", ("float", "fp32")))
_ACCEPTED = {"int8": ("int8",), "fp16": ("fp16", "int8"), "fp32": ("fp32", "fp16", "int8")}


@dataclass(frozen=True)
class Audit:
    """Convolutions by the type of their input, "unknown" where the inspector does not say."""

    asked: str
    counts: Dict[str, int]
    others: Tuple[str, ...]  # names of the convolutions that did not take the precision

    @property
    def readable(self) -> bool:
        """Return whether the inspector told the type of any convolution."""
        return any(count for name, count in self.counts.items() if name != "unknown")

    @property
    def passed(self) -> bool:
        """Return whether enough convolutions took the precision, or nobody can tell."""
        known = sum(count for name, count in self.counts.items() if name != "unknown")
        taken = sum(self.counts.get(name, 0) for name in _ACCEPTED[self.asked])
        return not self.readable or taken >= MIN_SHARE * known

    def __str__(self) -> str:
        """Return the counts, "convolutions: 38 in fp16, 2 in fp32"."""
        parts = [f"{count} in {name}" for name, count in sorted(self.counts.items()) if count]
        return f"convolutions: {', '.join(parts) or 'none that the inspector shows'}"


def audit_engine(trt: Any, engine: Any, precision: str) -> Audit:
    """Count the convolutions of an engine by precision.

    Args:
        trt: the tensorrt module.
        engine: a trt.ICudaEngine, built at ProfilingVerbosity.DETAILED.
        precision: what was asked for: "fp32", "fp16" or "int8".
    """
    inspector = engine.create_engine_inspector()
    return audit_layers(
        inspector.get_engine_information(trt.LayerInformationFormat.JSON), precision
    )


def audit_layers(inspector_json: str, precision: str) -> Audit:
    """Count the convolutions in the inspector's JSON by precision; see audit_engine()."""
    try:
        layers = json.loads(inspector_json).get("Layers", [])
    except ValueError:
        layers = []
    counts: Dict[str, int] = {}
    others = []
    for layer in filter(_is_convolution, layers):
        name = _input_precision(layer)
        counts[name] = counts.get(name, 0) + 1
        if name not in _ACCEPTED[precision]:
            others.append(str(layer.get("Name", "?")))
    return Audit(precision, counts, tuple(others))


def _is_convolution(layer: Any) -> bool:
    """Layers are plain names below DETAILED; a type or parameter type of "Convolution" else."""
    if not isinstance(layer, dict):
        return False
    kinds = f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}".lower()
    return "convolution" in kinds


def _input_precision(layer: Dict[str, Any]) -> str:
    inputs = layer.get("Inputs") or [{}]
    datatype = str(inputs[0].get("Format/Datatype", "")).lower()
    for name, words in _NAMES:
        if any(word in datatype for word in words):
            return name
    return "unknown"
