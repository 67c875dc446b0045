"""contract.json: what --extract writes beside a target's files."""

import json
from pathlib import Path
from typing import Any

from fastseg_runtime.bundle.contract import write_contract
from fastseg_runtime.bundle.manifest import ClassInfo, InputSpec, OutputSpec

from tests.doubles.tiny_bundle import empty_plan


def contract_of(folder: Path, io: dict[str, str], **fields: Any) -> dict[str, Any]:
    plan = empty_plan(64, 32, **fields).with_artifact("some", b"", io=io)
    file = write_contract(plan.manifest, plan.manifest.artifacts[0], folder)
    table = json.loads(file.read_text("utf-8"))
    assert isinstance(table, dict)
    return table


def test_a_contract_holds_what_a_program_in_another_language_needs(tmp_path: Path) -> None:
    classes, spec = [ClassInfo("Sky", (1, 2, 3))], InputSpec(64, 32, resize="letterbox")
    fields = {"classes": classes, "input": spec, "output": OutputSpec(mask_stride=2)}
    assert contract_of(tmp_path, {"image": "int8 NHWC", "classes": "uint8"}, **fields) == {
        "version": 1,
        "target": "some",
        "file": "model.onnx",
        "backend": "onnxruntime",
        "input": {
            "name": "image",
            "type": "int8",
            "layout": "NHWC",
            "width": 64,
            "height": 32,
            "color": "rgb",
            "mean": 128.0,
            "std": 64.0,
            "resize": "letterbox",
        },
        "output": {
            "name": "classes",
            "type": "uint8",
            "layout": "NHW",
            "cover": "padded",
            "width": 32,
            "height": 16,
        },
        "ignore_index": 255,
        "classes": [{"name": "Sky", "color": [1, 2, 3]}],
    }


def test_a_contract_says_where_logits_come_out(tmp_path: Path) -> None:
    output = contract_of(tmp_path, {"image": "float32 NHWC", "logits": "float32 NCHW"})["output"]
    assert (output["name"], output["type"], output["layout"]) == ("logits", "float32", "NCHW")
    assert (output["width"], output["height"]) == (64, 32)  # of the class map


def test_what_a_manifest_leaves_out_is_bytes_in_and_ids_out(tmp_path: Path) -> None:
    table = contract_of(tmp_path, {})
    assert (table["input"]["type"], table["input"]["layout"]) == ("uint8", "NHWC")
    assert (table["output"]["name"], table["output"]["type"]) == ("classes", "uint8")
