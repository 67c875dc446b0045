"""What the exporter prints: artifacts of a bundle, and the list of targets."""

import importlib.util
import math
from collections.abc import Iterable
from typing import Any

from fastseg_runtime.manifest import Artifact, Manifest
from fastseg_targets.profile import Target
from rich.table import Table

# Extra of fastseg-edge -> a module that is there when the extra is installed.
MODULE_OF_EXTRA = {
    "onnx": "onnxruntime",
    "tflite": "litert_torch",
    "coreml": "coremltools",
    "train": "torch",
}


def summary(artifact: Artifact) -> dict[str, Any]:
    """Return an artifact as the exporter's --json has it."""
    verification = artifact.verification or {}
    keys = ("miou", "miou_drop", "worst_class", "worst_class_drop", "agreement", "latency_ms")
    return {
        "target": artifact.target,
        "precision": artifact.precision,
        "bytes": sum(file.bytes for file in artifact.files),
        **{key: verification.get(key) for key in keys},
        "runner": verification.get("runner"),
        "bounds_ms": artifact.extra.get("bounds_ms", {}),
    }


def artifact_table(manifest: Manifest) -> Table:
    """Return one row per artifact; mIoU and its drop in percent."""
    table = Table(title=f"{manifest.name}, {manifest.input.width}x{manifest.input.height}")
    table.add_column("target", no_wrap=True)
    columns = ("made", "MB", "mIoU", "drop", "worst class", "agree", "ms here")
    for column in columns:
        table.add_column(column, justify="right")
    for artifact in manifest.artifacts:
        row = summary(artifact)
        worst = "-"
        if row["worst_class_drop"] is not None:
            worst = f"{row['worst_class']} {100 * row['worst_class_drop']:+.1f}"
        table.add_row(
            row["target"],
            row["precision"],
            f"{row['bytes'] / 1e6:.2f}",
            _percent(row["miou"]),
            _percent(row["miou_drop"], "+.2f"),
            worst,
            _percent(row["agreement"], ".2f"),
            "-" if row["latency_ms"] is None else f"{row['latency_ms']:.1f}",
        )
    return table


def _percent(value: float | None, form: str = ".1f") -> str:
    return "-" if value is None or math.isnan(value) else f"{100 * value:{form}}"


def slower_than_float(manifest: Manifest) -> list[str]:
    """Return a sentence for each int8 artifact that is slower here than its float sister."""
    rows = {a.target: summary(a) for a in manifest.artifacts}
    sentences = []
    for name, row in rows.items():
        sister = rows.get(name.replace("-int8", "-fp32"))
        if "int8" not in name or sister is None or not (row["latency_ms"] and sister["latency_ms"]):
            continue
        ratio = row["latency_ms"] / sister["latency_ms"]
        if ratio > 1:
            sentences.append(
                f"{name} is slower than {sister['target']} on this machine ({ratio:.2f}x the time)"
            )
    return sentences


def bound_lines(manifest: Manifest) -> list[str]:
    """Return the roofline bounds in words."""
    return [
        f"{artifact.target}: bound, not a prediction: no faster than {bound:.2f} ms on {device}"
        for artifact in manifest.artifacts
        for device, bound in artifact.extra.get("bounds_ms", {}).items()
    ]


def is_installed(extra: str) -> bool:
    """Return whether what an extra brings is here."""
    return importlib.util.find_spec(MODULE_OF_EXTRA.get(extra, extra)) is not None


def target_rows(targets: Iterable[Target]) -> list[dict[str, str]]:
    """Return each target with what it needs and whether this machine has it."""
    return [
        {
            "target": target.name,
            "description": target.description,
            "ladder": " > ".join(target.ladder),
            "needs": f"pip install 'fastseg-edge[{target.extra}]'",
            "here": "yes" if is_installed(target.extra) else "no",
        }
        for target in targets
    ]


def target_table(targets: Iterable[Target]) -> Table:
    """Return the list of targets as a table."""
    table = Table()
    for column in ("target", "description", "precisions", "needs", "here"):
        table.add_column(column)
    for row in target_rows(targets):
        table.add_row(*row.values())
    return table
