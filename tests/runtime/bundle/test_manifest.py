import json
from dataclasses import replace
from typing import Any

import pytest
from fastseg_runtime.bundle.manifest import Manifest, ManifestError
from hypothesis import given
from hypothesis import strategies as st

from tests.doubles.tiny_bundle import full_plan

WHOLE = full_plan().manifest
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def changed(path: str, value: Any) -> str:
    """The whole manifest as JSON with one value replaced."""
    table = json.loads(WHOLE.to_json())
    place = table
    *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in parents:
        place = place[key]
    place[last] = value
    return json.dumps(table)


def test_a_manifest_survives_being_written_and_read() -> None:
    assert Manifest.from_json(WHOLE.to_json()) == WHOLE


def test_keys_of_a_newer_writer_are_ignored() -> None:
    assert Manifest.from_json(changed("model.colour_of_the_day", "blue")) == WHOLE


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("name", 3, r"manifest\.name: expected str, got 3"),
        ("classes.0.color", [1, 2], r"classes\[0\]\.color: expected 3 values"),
        ("classes.0.color", [1, 2, 256], r"expected three integers 0 to 255"),
        ("classes", [], r"manifest\.classes: 0 makes no sense"),
        ("input.width", 0, r"input\.width: 0 makes no sense"),
        ("input.height", 10**9, r"input\.height: 1000000000 makes no sense"),
        ("input.std", 0, r"input\.std"),
        ("input.mean", float("nan"), r"input\.mean"),
        ("input.color", "bgr", r"input\.color"),
        ("input.resize", "crop", r"input\.resize"),
        ("output.kind", "boxes", r"output\.kind"),
        ("output.mask_stride", 3, r"output\.mask_stride"),
        ("artifacts.0.files.0.bytes", True, r"files\[0\]\.bytes: expected int, got True"),
        ("artifacts.0.files", "model.onnx", r"files: expected list"),
        ("model", [], r"manifest\.model: expected a table, got \[\]"),
        ("schema", 2, r"schema 2, this fastseg reads 1"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_place(
    path: str, value: Any, message: str
) -> None:
    with pytest.raises(ManifestError, match=message):
        Manifest.from_json(changed(path, value))


def test_more_classes_than_a_byte_can_tell_are_refused() -> None:
    many = replace(WHOLE, classes=WHOLE.classes * 86)
    with pytest.raises(ManifestError, match="classes: 258"):
        Manifest.from_json(many.to_json())


def test_a_missing_field_is_named() -> None:
    table = json.loads(WHOLE.to_json())
    del table["model"]["variant"]
    with pytest.raises(ManifestError, match=r"manifest\.model: missing keys \['variant'\]"):
        Manifest.from_json(json.dumps(table))


@given(document=JSON)
def test_any_other_json_is_a_manifest_error(document: Any) -> None:
    with pytest.raises(ManifestError):
        Manifest.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_what_is_no_json_is_a_manifest_error(text: str) -> None:
    with pytest.raises(ManifestError, match="is not JSON"):
        Manifest.from_json(text)


@given(data=st.data(), value=JSON)
def test_any_value_in_any_place_is_taken_or_a_manifest_error(
    data: st.DataObject, value: Any
) -> None:
    path = data.draw(
        st.sampled_from(
            [
                "name",
                "model",
                "model.macs",
                "classes",
                "classes.1",
                "input",
                "input.mean",
                "output",
                "artifacts",
                "artifacts.0",
                "artifacts.0.files",
                "artifacts.0.io",
                "selftest.0.sha256",
            ]
        )
    )
    try:
        Manifest.from_json(changed(path, value))
    except ManifestError:
        return


OWN = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "scale": 1, "color": "rgb"}


def test_a_networks_own_normalisation_is_kept_and_an_older_manifest_has_none() -> None:
    manifest = Manifest.from_json(changed("model.normalization", OWN))
    assert manifest.model.normalization == OWN
    assert Manifest.from_json(manifest.to_json()) == manifest
    older = json.loads(changed("model.normalization", None))
    del older["model"]["normalization"], older["model"]["logits"]
    assert Manifest.from_json(json.dumps(older)).model.normalization is None


@pytest.mark.parametrize(
    "change",
    [
        {"mean": [0, 0]}, {"mean": 1}, {"mean": ["a", 0, 0]}, {"mean": [float("nan"), 0, 0]},
        {"std": [1, 1, 0]}, {"std": [1, 1, 1e7]}, {"std": [True, 1, 1]}, {"scale": 2},
        {"color": "yuv"},
    ],
)  # fmt: skip
def test_a_normalisation_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ManifestError, match="model.normalization"):
        Manifest.from_json(changed("model.normalization", {**OWN, **change}))
