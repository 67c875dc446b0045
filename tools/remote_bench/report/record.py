"""`--record`: the bundle carries the figures of each board that it was measured on."""

import dataclasses
import os
import zipfile
from pathlib import Path
from typing import Any

from fastseg_runtime.bundle.reader import MANIFEST, open_bundle


def record(bundle: Path, report: dict[str, Any]) -> None:
    """Add a report's figures to the manifest, at the artifact that ran.

    Raises:
        ValueError: the bundle has no artifact of the report's target.
    """
    with open_bundle(bundle) as opened:
        manifest, target = opened.manifest, report["bundle"]["target"]
        opened.artifact(target)
    artifacts = tuple(
        dataclasses.replace(artifact, benchmarks=(*artifact.benchmarks, figures(report)))
        if artifact.target == target
        else artifact
        for artifact in manifest.artifacts
    )
    text = dataclasses.replace(manifest, artifacts=artifacts).to_json()
    part = bundle.with_name(f"{bundle.name}.part")
    try:
        _rewrite(bundle, part, text)
        os.replace(part, bundle)
    finally:
        part.unlink(missing_ok=True)


def _rewrite(bundle: Path, part: Path, manifest: str) -> None:
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(part, "w") as new:
        for entry in old.infolist():
            content = manifest.encode("utf-8") if entry.filename == MANIFEST else old.read(entry)
            new.writestr(entry, content)


def figures(report: dict[str, Any]) -> dict[str, Any]:
    """Return the few figures that a manifest holds of a measurement."""
    latency, power = report["latency_ms"] or {}, report["power"] or {}
    keys = ("run_id", "created", "tool", "verdict", "fps")
    return {
        **{key: report[key] for key in keys},
        "reasons": [reason["code"] for reason in report["reasons"]],
        "device": {key: report["device"][key] for key in ("name", "model", "module", "jetpack")},
        "engine": report["engine"],
        "latency_ms": {key: latency.get(key) for key in ("p50", "p90", "p99", "count")},
        "memory_mb": report["memory"]["peak_mb"],
        "power_w": power.get("flat_out", {}).get("mean_w"),
        "power_scope": power.get("scope"),
        "accuracy": report["accuracy"],
    }
