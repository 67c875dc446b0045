"""What the exporter prints: artifacts of a bundle, and the list of targets."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from fastseg_runtime.arrays.terminal import TextTable
from fastseg_runtime.bundle.manifest import Artifact, Manifest
from fastseg_targets.target import Target

from fastseg_exporters.convert.exporter import CAVEAT, Exporter, exporters, from_extra
from fastseg_exporters.gate.compare import Comparison
from fastseg_exporters.gate.referees.referee import verdicts_of


def summary(artifact: Artifact) -> dict[str, Any]:
    """Return an artifact as the exporter's --json has it."""
    verification = artifact.verification or {}
    keys = ("miou", "miou_drop", "worst_class", "worst_class_drop", "agreement", "latency_ms")
    return {
        "target": artifact.target,
        "precision": artifact.precision,
        "bytes": sum(file.bytes for file in artifact.files),
        **{key: verification.get(key) for key in keys},
        "miou_classes": verification.get("miou_classes"),
        "runner": verification.get("runner"),
        "confidence": verification.get("confidence"),
        "bounds_ms": artifact.extra.get("bounds_ms", {}),
        "caveat": artifact.extra.get(CAVEAT),
        "referees": [dataclasses.asdict(verdict) for verdict in verdicts_of(artifact)],
    }


COLUMNS = ("target", "made", "MB", "mIoU", "drop", "worst class", "agree", "ms here")


def artifact_table(manifest: Manifest) -> TextTable:
    """Return one row per artifact, as its export found it; mIoU and its drop in percent."""
    rows = [_scores(summary(artifact)) for artifact in manifest.artifacts]
    columns: tuple[str, ...] = COLUMNS
    for heading, tell in (("caveat", _caveat), ("referees", _outcomes)):
        told = [tell(artifact) for artifact in manifest.artifacts]
        if any(told):
            columns = (*columns, heading)
            rows = [(*row, text or "-") for row, text in zip(rows, told, strict=True)]
    title = f"{manifest.name}, {manifest.input.width}x{manifest.input.height}"
    return TextTable(columns, rows, title, right=range(1, len(COLUMNS)))


def _caveat(artifact: Artifact) -> str:
    return str(artifact.extra.get(CAVEAT, ""))


def _outcomes(artifact: Artifact) -> str:
    return ", ".join(f"{verdict.referee} {verdict.outcome}" for verdict in verdicts_of(artifact))


def referee_lines(manifest: Manifest) -> list[str]:
    """Return what referees said of the artifacts, and what each of them is not."""
    told = [(a.target, verdict) for a in manifest.artifacts for verdict in verdicts_of(a)]
    lines = [
        f"{target}: {verdict.referee} {verdict.version} {verdict.outcome} it: {verdict.says}"
        for target, verdict in told
    ]
    limits = {verdict.referee: verdict.is_not for _, verdict in told if verdict.is_not}
    return [*lines, *(f"{name} is not {is_not}" for name, is_not in limits.items())]


def comparison_table(comparison: Comparison) -> TextTable:
    """Return one row per artifact, as it does on this machine now."""
    return _scores_table(
        [_scores(row.to_table()) for row in comparison.rows],
        f"{comparison.bundle.name}: {comparison.images} images of {comparison.data}, "
        f"against {comparison.reference}",
    )


def missing_lines(comparison: Comparison) -> list[str]:
    """Return why artifacts have no score or no time here."""
    rows = (row for row in comparison.rows if row.not_here)
    return [f"{row.artifact.target}: {row.not_here}" for row in rows]


def _scores_table(rows: list[tuple[str, ...]], title: str) -> TextTable:
    return TextTable(COLUMNS, rows, title, right=range(1, len(COLUMNS)))


def _scores(row: dict[str, Any]) -> tuple[str, ...]:
    worst = "-"
    if row["worst_class_drop"] is not None:
        worst = f"{row['worst_class']} {100 * row['worst_class_drop']:+.1f}"
    return (
        row["target"],
        row["precision"],
        f"{row['bytes'] / 1e6:.2f}",
        _percent(row["miou"]),
        _percent(row["miou_drop"], "+.2f"),
        worst,
        _percent(row["agreement"], ".2f"),
        "-" if row["latency_ms"] is None else f"{row['latency_ms']:.1f}",
    )


def _percent(value: float | None, form: str = ".1f") -> str:
    return "-" if value is None or math.isnan(value) else f"{100 * value:{form}}"


def class_lines(manifest: Manifest) -> list[str]:
    """Return of how many classes a mIoU is the mean, where some occur nowhere."""
    total = len(manifest.classes)
    rows = [summary(artifact) for artifact in manifest.artifacts]
    counts = {row["miou_classes"]: row["target"] for row in reversed(rows)}
    return [
        f"{target}: mIoU is the mean of {count} of {total} classes; the others occur in no label"
        for count, target in counts.items()
        if count is not None and count < total
    ]


def confidence_lines(manifest: Manifest) -> list[str]:
    """Return how well each artifact's confidence is calibrated, in words."""
    found = [(a.target, (a.verification or {}).get("confidence")) for a in manifest.artifacts]
    return [
        f"{target}: expected calibration error {sure['ece']:.3f}, {sure['ece_before']:.3f} before "
        f"the temperature of {sure['temperature']:.2f} ({sure['images']} pictures that it has not "
        "seen)"
        for target, sure in found
        if sure and sure["ece"] is not None
    ]


def slower_than_float(manifest: Manifest) -> list[str]:
    """Return a sentence for each int8 artifact that is slower here than its float sister."""
    rows = {a.target: summary(a) for a in manifest.artifacts}
    sentences = []
    for name, row in rows.items():
        sister = rows.get(name.replace("-int8", "-fp32"))
        if sister is None or not (row["latency_ms"] and sister["latency_ms"]):
            continue
        ratio = row["latency_ms"] / sister["latency_ms"]
        if ratio > 1 and row["precision"].startswith("int8"):  # it may have stepped down
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


def target_rows(targets: Iterable[Target]) -> list[dict[str, str]]:
    """Return each target with what it needs, and whether this machine can make and judge it."""
    known = exporters()
    return [_target_row(target, known.get(target.exporter)) for target in targets]


def _target_row(target: Target, exporter: Exporter | None) -> dict[str, str]:
    needs = exporter.install if exporter else f"a package with the exporter {target.exporter}"
    return {
        "target": target.name,
        "description": target.description,
        "ladder": " > ".join(target.ladder),
        "needs": from_extra(target.extra) if target.extra else needs,
        "here": "yes" if exporter and exporter.is_installed else "no",
        "verified_by": exporter.verified_by if exporter else "",
    }


def target_table(targets: Iterable[Target]) -> TextTable:
    """Return the list of targets as a table."""
    rows = [
        (*list(row.values())[:-1], row["verified_by"] if row["here"] == "yes" else "-")
        for row in target_rows(targets)
    ]
    headings = ("target", "description", "precisions", "needs", "here", "verified here by")
    return TextTable(headings, rows)
