"""contract.json: what a program in another language needs beside a target's files.

docs/platforms/cpp.md has every field. Readers refuse another version and ignore unknown keys.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict

from fastseg_runtime.bundle.manifest import Artifact, Manifest
from fastseg_runtime.bundle.reader import inner_name

CONTRACT, VERSION = "contract.json", 1


def contract(manifest: Manifest, artifact: Artifact) -> Dict[str, Any]:
    """Return the contract of an artifact, as JSON has it."""
    given, output, io = manifest.input, manifest.output, artifact.io
    kind = "logits" if "logits" in io else output.kind
    image, _, layout = io.get("image", "uint8 NHWC").partition(" ")
    result, _, order = io.get(kind, "uint8").partition(" ")
    sides = {side: getattr(given, side) // output.mask_stride for side in ("width", "height")}
    return {
        "version": VERSION,
        "target": artifact.target,
        "file": inner_name(artifact.entry),
        "backend": str(artifact.requires.get("backend", "")),
        "input": {"name": "image", "type": image, "layout": layout, **asdict(given)},
        "output": {
            "name": kind,
            "type": result,
            "layout": order or "NHW",
            "cover": output.cover,
            **sides,  # of the class map, also where the logits are smaller
        },
        "ignore_index": manifest.ignore_index,
        "classes": [asdict(entry) for entry in manifest.classes],
    }


def write_contract(manifest: Manifest, artifact: Artifact, directory: Path) -> Path:
    """Write the contract of an artifact into the folder that its files are in; return the file."""
    table = contract(manifest, artifact)
    file = directory / CONTRACT
    file.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return file
