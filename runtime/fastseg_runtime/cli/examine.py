"""fastseg-run where it runs no inputs: what a bundle holds, and what this device can do with it.

Each command prints to stdout and returns the exit code.
"""

import json
import platform
import sys
from argparse import Namespace
from contextlib import closing
from dataclasses import asdict, fields
from importlib import metadata
from itertools import chain, repeat
from pathlib import Path
from time import localtime, strftime
from typing import Any, Dict, Iterable, List, Optional

from fastseg_runtime.arrays.command import BUGS, DONE, FAILED, UsageError
from fastseg_runtime.arrays.image import opencv
from fastseg_runtime.arrays.shared_files import cache_folder
from fastseg_runtime.arrays.terminal import printable
from fastseg_runtime.bundle.contract import CONTRACT, write_contract
from fastseg_runtime.bundle.manifest import MAX_TEXT, Artifact, Manifest
from fastseg_runtime.bundle.reader import Scene, inner_name, open_bundle
from fastseg_runtime.bundle.usage import describe_usage, require_usage
from fastseg_runtime.engines.engine import engines, names_record
from fastseg_runtime.engines.model_file import named_file, open_model
from fastseg_runtime.engines.opening import NoBackendError, Wish, candidates, reject_unavailable
from fastseg_runtime.engines.own_onnx import OwnFile
from fastseg_runtime.engines.selection import Availability, probe, this_processor
from fastseg_runtime.engines.selftest import forget_passed_tests, run_selftest
from fastseg_runtime.engines.tensorrt.cache import EngineCache
from fastseg_runtime.frames.session import RealtimeSegmentation


def check_usage(options: Namespace) -> None:
    """Raise UsageRefusedError if a model's weights are not for what --require-usage names."""
    if options.require_usage is not None:
        with closing(open_model(options.model, _own_file(options))) as model:
            usage = model.manifest.model.usage
        require_usage(options.require_usage, usage, str(options.model))


def inspect_bundle(options: Namespace) -> int:
    """Print the manifest."""
    with closing(open_model(options.model, _own_file(options))) as model:
        if options.json:
            print_json(json.loads(model.manifest.to_json()))
        else:
            print(printable(describe_bundle(model.manifest)))
    return DONE


def verify_bundle(options: Namespace) -> int:
    """Check hashes and run the self-test; fails if an artifact fails, or if none could be run."""
    report = verify(named_file(options.model), _wish(options))
    _print(options, report, describe_verification(report))
    outcomes = [row["passed"] for row in report["artifacts"]]
    return DONE if True in outcomes and False not in outcomes else FAILED


def extract_target(options: Namespace) -> int:
    """Write the files of one target, and its contract, into a folder."""
    with open_bundle(named_file(options.model)) as bundle:
        artifact = bundle.artifact(options.extract)
        names = [inner_name(entry.path) for entry in artifact.files] + [CONTRACT]
        refuse_existing([options.output / name for name in names], options)
        written = bundle.extract(options.extract, options.output)
        written.append(write_contract(bundle.manifest, artifact, options.output))
        files = [str(file) for file in written]
    _print(options, {"target": options.extract, "files": files}, "\n".join(files))
    return DONE


def prepare_engine(options: Namespace) -> int:
    """Open the best artifact, which builds and tests its engine where one is needed."""
    with open_session(options) as session:
        info = session.info
    report = {"backend": info.backend, "target": info.target, "precision": info.precision}
    ready = f"ready: {info.target} ({info.precision}) with {info.backend} {info.version}"
    _print(options, report, ready)
    return DONE


def show_device(options: Namespace) -> int:
    """Print what this device has; fails if a bundle was named and nothing in it runs here."""
    bundle = None if options.model is None else Path(options.model)
    report = examine_device(bundle, _wish(options))
    _print(options, report, describe_device(report))
    return FAILED if bundle is not None and not report["bundle"]["usable"] else DONE


def show_or_clear_cache(options: Namespace) -> int:
    """Print the engines that were built here, or remove them."""
    cache = EngineCache()
    entries, freed = cache.entries(), 0
    lines = [f"{cache_folder()}: {len(entries)} engines"]
    for entry in entries:
        used = strftime("%Y-%m-%d %H:%M", localtime(entry.used_s))
        state = "tested" if entry.trusted else "untested"
        size_mb = entry.bytes / 1e6
        lines.append(f"  {entry.digest[:12]}  {size_mb:.1f} MB  used {used}  {state}")
    if options.cache == "clear":
        freed = cache.clear()
        forget_passed_tests()
        lines = [f"removed {len(entries)} engines, {freed / 1e6:.1f} MB, from {cache_folder()}"]
    rows = [{"engine": e.digest, "bytes": e.bytes, "trusted": e.trusted} for e in entries]
    report = {"folder": str(cache_folder()), "engines": rows, "freed_bytes": freed}
    _print(options, report, "\n".join(lines))
    return DONE


def refuse_existing(outputs: Iterable[Path], options: Namespace) -> None:
    """Raise UsageError if something to be written is there already, and not to be overwritten."""
    there = [] if options.overwrite else [path for path in outputs if path.exists()]
    if there:
        more = f" (and {len(there) - 1} more)" if there[1:] else ""
        raise UsageError(f"{there[0]}{more} is there already; add --overwrite, or name another -o")


# Options that ask for something of a bundle and run no inputs.
OF_A_BUNDLE = {
    "inspect": inspect_bundle,
    "verify": verify_bundle,
    "extract": extract_target,
    "prepare": prepare_engine,
}


def _wish(options: Namespace) -> Wish:
    return Wish(
        options.backend,
        options.device,
        options.threads,
        target=options.target,
        own_file=_own_file(options),
    )


def _own_file(options: Namespace) -> OwnFile:
    return OwnFile(**{entry.name: getattr(options, entry.name) for entry in fields(OwnFile)})


def open_session(options: Namespace) -> RealtimeSegmentation:
    """Open the model with what the command line says about it."""
    return RealtimeSegmentation(
        options.model,
        backend=options.backend,
        device=options.device,
        threads=options.threads,
        target=options.target,
        engines=options.engines,
        own_file=_own_file(options),
    )


def _print(options: Namespace, table: Dict[str, Any], text: str) -> None:
    if options.json:
        print_json(table)
    else:
        print(printable(text))


def print_json(table: Dict[str, Any]) -> None:
    """Print the one document of --json, which any encoding of stdout can hold."""
    holds_all = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(printable(json.dumps(table, indent=1, ensure_ascii=not holds_all)))


def describe_bundle(manifest: Manifest) -> str:
    """Return a manifest as text for people."""
    model, spec, output = manifest.model, manifest.input, manifest.output
    names = ", ".join(entry.name for entry in manifest.classes)
    counts = {"M parameters": model.parameters / 1e6, "G multiply-adds": model.macs / 1e9}
    size = [f"{count:.2f} {unit}" for unit, count in counts.items() if count]  # 0: nobody counted
    made = ", ".join(filter(None, (manifest.created, manifest.tool)))
    lines = [
        ", ".join([f"{manifest.name}: {model.variant}", *size]) + (f"; {made}" if made else ""),
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
        BundleError: a file is damaged, or there is no such target.
    """
    with open_bundle(path) as bundle:
        if wish.target is not None:
            bundle.artifact(wish.target)
        bundle.verify()
        manifest, scenes, files = bundle.manifest, bundle.selftests(), len(bundle.entries)
    rows = [
        _verify_artifact(path, artifact, scenes, wish)
        for artifact in manifest.artifacts
        if wish.target in (None, artifact.target)
    ]
    return {"bundle": str(path), "files": files, "artifacts": rows}


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
        except BUGS:
            raise
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


def examine_device(bundle: Optional[Path], wish: Wish) -> Dict[str, Any]:
    """Return everything that --doctor reports, as a table for json.dumps."""
    libraries = {
        name: probe(name)
        for name, engine in engines().items()
        if engine.formats or names_record(engine.location)  # one that does not load is told
    }
    cv2 = opencv()
    report: Dict[str, Any] = {
        "python": platform.python_version(),
        "numpy": metadata.version("numpy"),
        "system": f"{platform.system()} {platform.machine()}",
        "int8_dot_product": this_processor().int8_dot_product,
        "backends": [asdict(library) for library in libraries.values()],
        "opencv": None if cv2 is None else cv2.__version__,
        "cache": {"folder": str(cache_folder()), "engines": len(EngineCache().entries())},
    }
    if bundle is not None:
        report["bundle"] = _find_candidates(bundle, wish, libraries)
    return report


def _find_candidates(
    bundle: Path, wish: Wish, libraries: Dict[str, Availability]
) -> Dict[str, Any]:
    usable: List[Dict[str, str]] = []
    rejected: List[Dict[str, str]] = []
    with closing(open_model(bundle, wish.own_file)) as model:
        for candidate in candidates(model, wish):
            library = libraries.get(candidate.backend) or probe(candidate.backend)
            rejection = reject_unavailable(candidate, library)
            if rejection is None:
                target, precision = candidate.artifact.target, candidate.artifact.precision
                row = {"target": target, "precision": precision, "backend": candidate.backend}
                usable.append(row)
            else:
                rejected.append(asdict(rejection))
    return {"path": str(bundle), "usable": usable, "rejected": rejected}


def describe_device(report: Dict[str, Any]) -> str:
    """Return the report as text."""
    dot = "with" if report["int8_dot_product"] else "without"
    lines = [
        f"Python {report['python']}, numpy {report['numpy']}, {report['system']}, "
        f"{dot} int8 dot products",
        "backends:",
    ]
    lines += [f"  {item['backend']:<12} {_state(item)}" for item in report["backends"]]
    lines.append(f"OpenCV: {report['opencv'] or _NO_OPENCV}")
    cache = report["cache"]
    lines.append(f"engine cache: {cache['folder']}, {cache['engines']} engines")
    if "bundle" in report:
        bundle = report["bundle"]
        lines.append(f"{bundle['path']}:")
        for verb, item in zip(chain(["runs"], repeat("else")), bundle["usable"]):
            lines.append(f"  {verb} {item['target']} ({item['precision']}) with {item['backend']}")
        if not bundle["usable"]:
            lines.append("  nothing in it runs here")
        for item in bundle["rejected"]:
            lines.append(f"  not {item['target']} with {item['backend']}: {item['reason']}")
    return "\n".join(lines)


_NO_OPENCV = (
    "not installed; for videos, cameras and faster resizing: pip install opencv-python-headless"
)


def _state(item: Dict[str, Any]) -> str:
    if item["usable"]:
        return f"ready, {item['version']}".rstrip(", ")
    return f"{item['reason']}; to add it: {item['fix']}" if item["fix"] else str(item["reason"])
