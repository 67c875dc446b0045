"""What goes around a Core ML program: texts and colours for Xcode, and reproducible bytes."""

import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastseg_runtime.bundle.manifest import ClassInfo

# What Xcode's preview of segmentation networks reads:
# https://apple.github.io/coremltools/docs-guides/source/xcode-model-preview-types.html
PREVIEW_TYPE = "com.apple.coreml.model.preview.type"
PREVIEW_PARAMS = "com.apple.coreml.model.preview.params"
CONVERSION_DATE = "com.github.apple.coremltools.conversion_date"
# Identifiers in the package's own manifest are made from paths within this namespace.
NAMESPACE = uuid.UUID("0b5d2f2e-6d0c-5f43-9a55-7f2d2e6c1f10")


@dataclass(frozen=True)
class PackageText:
    """What Xcode shows of a package, and what its preview draws with.

    Attributes:
        description: one line.
        author: who made it.
        licence: of the weights, the data's licence included.
        version: of the weights.
        classes: names and colours, in the order of ids.
    """

    description: str
    author: str
    licence: str
    version: str
    classes: Sequence[ClassInfo]


def describe(model: Any, text: PackageText) -> None:
    """Write the texts into a coremltools MLModel whose output is "classes" or "logits"."""
    model.short_description, model.author = text.description, text.author
    model.license, model.version = text.licence, text.version
    model.input_description["image"] = "RGB image; normalised inside the network"
    (output,) = (entry.name for entry in model.get_spec().description.output)
    model.output_description[output] = {
        "classes": f"class id of each pixel, (1, H, W), 0 to {len(text.classes) - 1}",
        "logits": "scores (1, K, h, w); upsample, then take the largest along K",
    }[output]
    metadata = model.user_defined_metadata
    metadata[PREVIEW_TYPE] = "imageSegmenter"
    metadata[PREVIEW_PARAMS] = json.dumps(
        {
            "labels": [entry.name for entry in text.classes],
            "colors": ["#{:02X}{:02X}{:02X}".format(*entry.color) for entry in text.classes],
        }
    )
    metadata.pop(CONVERSION_DATE, None)  # the same network gives the same bytes tomorrow


def save(model: Any, package: Path) -> None:
    """Save an MLModel as an .mlpackage, byte for byte the same every time."""
    shutil.rmtree(package, ignore_errors=True)
    model.save(str(package))
    program = package / "Data/com.apple.CoreML/model.mlmodel"
    program.write_bytes(model.get_spec().SerializeToString(deterministic=True))
    program.chmod(0o644)
    _fix_identifiers(package / "Manifest.json")
    # A table for ExecuTorch's debugger that Core ML's manifest does not list.
    (package / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)


def _fix_identifiers(manifest: Path) -> None:
    table = json.loads(manifest.read_text(encoding="utf-8"))
    new_ids = {
        old: str(uuid.uuid5(NAMESPACE, item["path"]))
        for old, item in table["itemInfoEntries"].items()
    }
    table["itemInfoEntries"] = {
        new_ids[old]: item for old, item in table["itemInfoEntries"].items()
    }
    table["rootModelIdentifier"] = new_ids[table["rootModelIdentifier"]]
    manifest.write_text(json.dumps(table, indent=4, sort_keys=True) + "\n", encoding="utf-8")
