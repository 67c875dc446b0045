"""fastseg-run --doctor: what this device has, what would run, and what would add the rest."""

import platform
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, List, Optional

from fastseg_runtime.arrays.image import opencv
from fastseg_runtime.arrays.shared_files import cache_folder
from fastseg_runtime.engines.engine import engines
from fastseg_runtime.engines.libraries import Availability, probe
from fastseg_runtime.engines.model_file import open_model
from fastseg_runtime.engines.opening import Wish, candidates, reject_unavailable
from fastseg_runtime.engines.selection import this_processor
from fastseg_runtime.engines.tensorrt.cache import EngineCache


def examine(bundle: Optional[Path], wish: Wish) -> Dict[str, Any]:
    """Return everything that --doctor reports, as a table for json.dumps."""
    libraries = {name: probe(name) for name, engine in engines().items() if engine.formats}
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
        report["bundle"] = _examine_bundle(bundle, wish, libraries)
    return report


def _examine_bundle(bundle: Path, wish: Wish, libraries: Dict[str, Availability]) -> Dict[str, Any]:
    model = open_model(bundle)
    try:
        usable: List[Dict[str, str]] = []
        rejected: List[Dict[str, str]] = []
        for candidate in candidates(model, wish):
            library = libraries.get(candidate.backend) or probe(candidate.backend)
            rejection = reject_unavailable(candidate, library)
            if rejection is None:
                artifact = candidate.artifact
                usable.append(
                    {
                        "target": artifact.target,
                        "precision": artifact.precision,
                        "backend": candidate.backend,
                    }
                )
            else:
                rejected.append(asdict(rejection))
        return {"path": str(bundle), "usable": usable, "rejected": rejected}
    finally:
        model.close()


def describe(report: Dict[str, Any]) -> str:
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
        lines += _describe_bundle(report["bundle"])
    return "\n".join(lines)


_NO_OPENCV = (
    "not installed; for videos, cameras and faster resizing: pip install opencv-python-headless"
)


def _state(item: Dict[str, Any]) -> str:
    if item["usable"]:
        return f"ready, {item['version']}".rstrip(", ")
    return f"{item['reason']}; to add it: {item['fix']}" if item["fix"] else str(item["reason"])


def _describe_bundle(bundle: Dict[str, Any]) -> List[str]:
    lines = [f"{bundle['path']}:"]
    for position, item in enumerate(bundle["usable"]):
        verb = "runs" if position == 0 else "else"
        lines.append(f"  {verb} {item['target']} ({item['precision']}) with {item['backend']}")
    if not bundle["usable"]:
        lines.append("  nothing in it runs here")
    lines += [
        f"  not {item['target']} with {item['backend']}: {item['reason']}"
        for item in bundle["rejected"]
    ]
    return lines
