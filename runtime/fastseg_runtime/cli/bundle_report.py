"""fastseg-run --inspect and --verify: what a bundle holds, and whether it works here."""

from pathlib import Path
from typing import Any, Dict, List

from fastseg_runtime.bundle.manifest import MAX_TEXT, Artifact, Manifest
from fastseg_runtime.bundle.reader import Scene, open_bundle
from fastseg_runtime.bundle.usage import describe_usage
from fastseg_runtime.engines.opening import NoBackendError, Wish
from fastseg_runtime.engines.selftest import run_selftest
from fastseg_runtime.frames.session import RealtimeSegmentation


def describe(manifest: Manifest) -> str:
    """Return a manifest as text for people."""
    model, spec, output = manifest.model, manifest.input, manifest.output
    names = ", ".join(entry.name for entry in manifest.classes)
    lines = [
        f"{manifest.name}: {model.variant}, {model.parameters / 1e6:.2f} M parameters, "
        f"{model.macs / 1e9:.2f} G multiply-adds; {manifest.created}, {manifest.tool}",
        f"trained on {model.trained_on or 'unknown data'}; "
        f"licence of the data: {model.data_licence or 'not stated'}; {describe_usage(model.usage)}",
        f"input {spec.width}x{spec.height}, {spec.resize}; gives {output.kind}"
        + (f" at 1/{output.mask_stride}" if output.mask_stride > 1 else ""),
        f"{len(manifest.classes)} classes: {names}",
        f"{len(manifest.selftest)} self-test scenes",
    ]
    return "\n".join(lines + [_describe_artifact(artifact) for artifact in manifest.artifacts])


def _describe_artifact(artifact: Artifact) -> str:
    size_mb = sum(entry.bytes for entry in artifact.files) / 1e6
    backend = artifact.requires.get("backend", artifact.format)
    line = f"  {artifact.target}: {artifact.precision}, {size_mb:.2f} MB, for {backend}"
    proof = artifact.verification or {}
    for key, label in (("miou", "mIoU"), ("miou_drop", "drop"), ("agreement", "agreement")):
        if isinstance(proof.get(key), (int, float)):
            line += f", {label} {100 * proof[key]:.2f} %"
    if proof:
        count, data = str(proof.get("images", "?")), str(proof.get("data", "unknown data"))
        # Of an open table: on one line, so that it cannot look like another artifact's.
        line += " (" + " ".join(f"{count:.20} images of {data:.{MAX_TEXT}}".split()) + ")"
    return line if proof else f"{line}, not verified"


def verify(path: Path, wish: Wish) -> Dict[str, Any]:
    """Check every hash, then run the self-test on each artifact that this device can run.

    Returns:
        {"bundle", "files": count, "artifacts": [{"target", "backend", "agreement", "required",
        "passed", "reason"}]}; "passed" is None where an artifact could not be run here.

    Raises:
        BundleError: a file is damaged.
    """
    with open_bundle(path) as bundle:
        bundle.verify()
        manifest, scenes = bundle.manifest, bundle.selftests()
    rows = [
        _verify_artifact(path, artifact, scenes, wish)
        for artifact in manifest.artifacts
        if wish.target in (None, artifact.target)
    ]
    files = {entry.path for artifact in manifest.artifacts for entry in artifact.files}
    return {
        "bundle": str(path),
        "files": len(files) + len(manifest.selftest),
        "artifacts": rows,
    }


def _verify_artifact(
    path: Path, artifact: Artifact, scenes: List[Scene], wish: Wish
) -> Dict[str, Any]:
    row: Dict[str, Any] = {"target": artifact.target, "backend": None, "passed": None, "reason": ""}
    try:
        session = RealtimeSegmentation(
            path,
            wish.backend,
            wish.device,
            threads=wish.threads,
            target=artifact.target,
            selftest=False,
        )
    except NoBackendError as error:
        tried = [item.reason for item in error.rejected if item.failed]
        reasons = tried or [item.reason for item in error.rejected]
        return {**row, "passed": False if tried else None, "reason": "; ".join(reasons)}
    row["backend"] = session.info.backend
    with session:
        if not scenes:
            return {**row, "reason": "the bundle has no self-test scenes"}
        try:
            outcome = run_selftest(session.infer, scenes, artifact, len(session.classes))
        except Exception as error:  # engines raise classes of their own
            return {**row, "passed": False, "reason": " ".join(str(error).split())}
    if outcome.wrong_id is not None:
        row["reason"] = (
            f"scene {outcome.scene} shows class id {outcome.wrong_id}, which has no name"
        )
    return {
        **row,
        "agreement": outcome.agreement,
        "required": outcome.required,
        "passed": outcome.passed,
    }


def describe_verification(report: Dict[str, Any]) -> str:
    """Return the outcome of verify() as text."""
    lines = [f"{report['files']} files are whole"]
    for row in report["artifacts"]:
        words = {True: "passes", False: "FAILS", None: "not run here"}[row["passed"]]
        line = f"{row['target']}: {words}"
        if row["backend"]:
            line += f" with {row['backend']}"
        if "agreement" in row:
            line += f", agreement {100 * row['agreement']:.2f} %"
            line += f", {100 * row['required']:.2f} % needed"
        lines.append(f"{line}: {row['reason']}" if row["reason"] else line)
    return "\n".join(lines)
