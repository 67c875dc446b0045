"""Forged manifests, foreign files and texts that a terminal would obey: one line each, no harm."""

import json
import re
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastseg_runtime import BundleError, NoBackendError, RealtimeSegmentation
from fastseg_runtime.arrays.terminal import printable
from fastseg_runtime.bundle.manifest import Manifest, ManifestError
from fastseg_runtime.engines import opening
from fastseg_runtime.engines.selection import Processor, cpu_count
from hypothesis import given
from hypothesis import strategies as st

from tests.doubles.tiny_bundle import argmax_onnx, empty_plan, full_plan, noise
from tests.runtime.bundle.test_manifest import WHOLE, changed

ESCAPES = "\x1b[2J\x1b]0;pwn\x07"
TEXTS = ["a\x00", ESCAPES, "\x9b31m", "two\nlines", "\u202egnp.exe", "\u2028", "\ud800", "x" * 5000]
PLACES = [
    "name",
    "created",
    "tool",
    "model.variant",
    "model.trained_on",
    "model.data_licence",
    "classes.0.name",
    "artifacts.0.target",
    "artifacts.0.precision",
    "artifacts.0.format",
    "artifacts.0.entry",
    "artifacts.0.files.0.path",
    "artifacts.0.requires.backend",
    "artifacts.0.requires.min_version",
    "artifacts.0.io.image",
]


@pytest.mark.parametrize("text", TEXTS, ids=[repr(text[:8]) for text in TEXTS])
@pytest.mark.parametrize("place", PLACES)
def test_a_name_is_short_and_has_no_control_characters(place: str, text: str) -> None:
    with pytest.raises(ManifestError, match=re.escape(place.split(".")[-1])):
        Manifest.from_json(changed(place, text))


@pytest.mark.parametrize(
    "name", ["Straße", "路", "می‌خواهم", "👩‍🚒 fire engine", "sign / traffic light"]
)
def test_names_in_any_language_are_taken(name: str) -> None:
    assert Manifest.from_json(changed("classes.0.name", name)).classes[0].name == name


@pytest.mark.parametrize("length", [200, 201])
def test_a_class_name_has_at_most_200_characters(length: int) -> None:
    text = changed("classes.0.name", "x" * length)
    if length <= 200:
        Manifest.from_json(text)
    else:
        with pytest.raises(ManifestError, match="has 201 characters; expected 200 at most"):
            Manifest.from_json(text)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("input.std", 1e29, r"input\.std: 1e\+29 makes no sense here; expected 0\.001 to"),
        ("input.std", 10**30, "a number of 31 digits"),
        ("input.std", float("inf"), r"input\.std: expected a finite number, got inf"),
        ("input.mean", 1e300, r"input\.mean"),
        ("ignore_index", -1, r"ignore_index: -1 makes no sense here; expected 0 or more"),
        ("ignore_index", 256, r"ignore_index: 256 makes no sense here; expected 0 to 255"),
        ("ignore_index", 10**30, "31 digits"),
        ("model.macs", -1, r"model\.macs"),
        ("artifacts.0.files.0.bytes", -1, r"files\[0\]\.bytes"),
        ("artifacts.0.files.0.sha256", "x" * 64, "64 hexadecimal digits"),
        ("selftest.0.sha256", "", "64 hexadecimal digits"),
        ("classes.0.name", "", r"classes\[0\]\.name: is empty"),
        ("classes.1.name", WHOLE.classes[0].name, "'red'.*each name once"),
        ("artifacts.0.requires", {"backend": [1, 2, 3]}, r"requires\.backend: \[1, 2, 3\]"),
        ("artifacts.0.requires", {"backend": "../x"}, "expected the name of a backend"),
        ("artifacts.0.requires", {"min_version": "9" * 33}, r"min_version.*expected a version"),
        ("artifacts.0.extra", {"selftest_agreement": -5}, r"-5 .*expected a fraction, 0 to 1"),
        ("artifacts.0.extra", {"selftest_agreement": float("nan")}, "holds nan"),
        ("artifacts.0.extra", {"selftest_agreement": True}, "True .*expected a fraction"),
        ("artifacts.0.extra", {"selftest_agreement": "1"}, "expected a fraction"),
        ("artifacts.0.extra", {"selftest_agreements": [1, 1.01]}, "1.01 .*expected a fraction"),
        ("artifacts.0.extra", {"selftest_agreements": 3}, "expected a fraction"),
        ("artifacts.0.extra", {"selftest_agreements": [None]}, "None .*expected a fraction"),
        ("artifacts.0.requires", {"min_onnxruntime": "9" * 5000}, r"min_onnxruntime: .*a version"),
        ("artifacts.0.requires", {"min_litert": ESCAPES}, r"requires\.min_litert: .*a version"),
        ("artifacts.0.requires", {"min_x": [1]}, r"requires\.min_x: \[1\] .*a version"),
        ("selftest", [asdict(WHOLE.selftest[0])] * 65, "65 makes no sense.*at most 64 scenes"),
        ("artifacts.0.verification", {"miou": 60.1}, r"verification\.miou: 60\.1"),
        ("artifacts.0.verification", {"miou_drop": -1.5}, r"verification\.miou_drop"),
        ("artifacts.0.io", {"num_classes": 11}, "11 makes no sense here; expected 3, one for each"),
        ("artifacts.0.extra", {"x": json.loads("[" * 60 + "]" * 60)}, "nested deeper than 50"),
    ],
)
def test_a_number_that_cannot_be_is_named_with_what_can(
    place: str, value: Any, message: str
) -> None:
    with pytest.raises(ManifestError, match=message):
        Manifest.from_json(changed(place, value))


def test_a_manifest_that_says_a_thing_twice_is_refused() -> None:
    text = WHOLE.to_json().rstrip().removesuffix("}") + ', "name": "evil"}'
    with pytest.raises(ManifestError, match="says 'name' twice"):
        Manifest.from_json(text)


def test_two_artifacts_of_one_target_are_refused() -> None:
    twice = replace(WHOLE, artifacts=WHOLE.artifacts * 2)
    with pytest.raises(ManifestError, match="each target once"):
        Manifest.from_json(twice.to_json())


def test_what_json_does_not_have_is_written_as_null() -> None:
    artifact = replace(WHOLE.artifacts[0], verification={"miou": float("nan")})
    text = replace(WHOLE, artifacts=(artifact,)).to_json()
    assert Manifest.from_json(text).artifacts[0].verification == {"miou": None}


@pytest.mark.parametrize("what", ["classes", "artifacts", "keys"])
def test_a_manifest_of_very_many_names_is_refused_at_once(what: str) -> None:
    table, many = json.loads(WHOLE.to_json()), 20_000
    if what == "classes":
        table["classes"] = [{"name": f"c{i}", "color": [0, 0, 0]} for i in range(many)]
    elif what == "artifacts":
        table["artifacts"] = [{**table["artifacts"][0], "target": f"t{i}"} for i in range(many)]
    else:
        table["artifacts"][0]["extra"] = {str(i): 0 for i in range(many)}
    text = json.dumps(table).replace(f'"{many - 1}": 0', '"0": 0')
    start = time.process_time()
    with pytest.raises(ManifestError, match=r"20000 makes no sense|says '0' twice"):
        Manifest.from_json(text)
    assert time.process_time() - start < 5


@given(st.text(st.characters()))
def test_what_is_printed_holds_nothing_that_a_terminal_obeys(text: str) -> None:
    shown = printable(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", shown)
    assert printable(shown) == shown
    assert json.loads(printable(json.dumps(text, ensure_ascii=False))) == text


def run(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "fastseg_runtime.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, check=False)


@pytest.mark.parametrize("flags", [["--inspect"], ["--inspect", "--json"], ["--doctor"], []])
def test_the_terminal_gets_no_escapes_of_a_bundle(flags: list[str], tmp_path: Path) -> None:
    proof = {"data": ESCAPES + "\x9b", "images": ESCAPES, "agreement": 1.0}
    plan = full_plan()
    artifact = replace(plan.manifest.artifacts[0], verification=proof)
    named = replace(plan.manifest, artifacts=(artifact,))
    good = replace(plan, manifest=named).write(tmp_path / "good.fastseg")
    bad = replace(plan, manifest=replace(named, name=ESCAPES)).write(tmp_path / "bad.fastseg")
    for path in (good, bad):
        result = run(str(path), *flags) if flags != ["--doctor"] else run("--doctor", str(path))
        output = result.stdout + result.stderr
        assert not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]", output)
        assert b"Traceback" not in output


def test_what_was_verified_fills_one_line_at_most(tmp_path: Path) -> None:
    proof = {"data": "val)\n  cpu-int8: int8, for onnxruntime, mIoU 99 % (all", "images": "9" * 999}
    plan = full_plan()
    artifact = replace(plan.manifest.artifacts[0], verification=proof)
    forged = replace(plan, manifest=replace(plan.manifest, artifacts=(artifact,)))
    lines = run(str(forged.write(tmp_path / "b.fastseg")), "--inspect").stdout.splitlines()
    assert len(lines) == 6
    assert max(map(len, lines)) < 300


@pytest.mark.parametrize("content", [b"", b"\x08\x09" + bytes(range(255)), argmax_onnx()[:-9]])
def test_a_damaged_artifact_is_no_reason_to_take_another(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast_in_int8 = Processor(arm=False, int8_dot_product=True)  # which int8 is taken first on
    monkeypatch.setattr(opening, "this_processor", lambda: fast_in_int8)
    plan = full_plan().with_artifact("cpu-int8", content, precision="int8")
    path = plan.write(tmp_path / "b.fastseg")
    with pytest.raises(BundleError, match="cpu-int8/model.onnx is damaged"):
        RealtimeSegmentation(path)
    RealtimeSegmentation(path, target="cpu-fp32").close()


def test_verify_says_which_class_has_no_name(tmp_path: Path) -> None:
    plan = empty_plan(classes=full_plan().manifest.classes[:2]).with_artifact("x", argmax_onnx())
    plan = plan.with_scene(noise(), np.zeros((32, 48), np.uint8))
    result = run(str(plan.write(tmp_path / "b.fastseg")), "--verify")
    assert result.returncode == 1
    assert b"scene 0 shows class id 2, which has no name" in result.stdout


def test_an_engines_own_words_are_escaped_too(tmp_path: Path, caplog: Any) -> None:
    import onnx

    model = onnx.load_from_string(argmax_onnx())
    model.graph.node[0].op_type = ESCAPES
    path = empty_plan().with_artifact("x", model.SerializeToString()).write(tmp_path / "b.fastseg")
    with pytest.raises(NoBackendError) as caught:
        RealtimeSegmentation(path, backend="onnxruntime")
    assert "\x1b" not in str(caught.value) + caplog.text


def test_a_backend_that_is_not_there_is_said_in_the_right_words(tmp_path: Path) -> None:
    plan = empty_plan().with_artifact("x", argmax_onnx(), requires={"backend": "os"})
    with pytest.raises(NoBackendError, match="with os: no backend 'os'; choose one of"):
        RealtimeSegmentation(plan.write(tmp_path / "b.fastseg"))


@pytest.mark.parametrize(
    ("kind", "gives", "message"),
    [
        ("logits", "classes", r"gave uint8 \(1, 32, 48\), its manifest promises logits"),
        ("classes", "logits", r"gave float32 \(1, 3, 32, 48\), its manifest promises class maps"),
    ],
)
def test_an_output_of_another_kind_than_promised_is_said(
    kind: str, gives: str, message: str, tmp_path: Path
) -> None:
    from fastseg_runtime.bundle.manifest import OutputSpec

    plan = empty_plan(output=OutputSpec(kind)).with_artifact("x", argmax_onnx(kind=gives))
    path = plan.with_scene(noise(), np.zeros((32, 48), np.uint8)).write(tmp_path / "b.fastseg")
    with pytest.raises(NoBackendError, match=message):
        RealtimeSegmentation(path, backend="onnxruntime")


def test_a_manifest_that_contradicts_itself_about_logits_is_refused() -> None:
    table = json.loads(changed("artifacts.0.io", {"classes": "uint8"}))
    table["output"]["kind"] = "logits"
    with pytest.raises(ManifestError, match=r"artifacts that give logits, as output\.kind says"):
        Manifest.from_json(json.dumps(table))


def test_fewer_classes_than_the_networks_logits_are_refused(tmp_path: Path) -> None:
    from fastseg_runtime.bundle.manifest import OutputSpec

    plan = empty_plan(output=OutputSpec("logits")).with_artifact("x", argmax_onnx(kind="logits"))
    plan = plan.with_scene(noise(), np.zeros((32, 48), np.uint8))
    few = replace(plan, manifest=replace(plan.manifest, classes=plan.manifest.classes[:2]))
    with pytest.raises(BundleError, match="tells 3 classes apart, the manifest names 2"):
        RealtimeSegmentation(few.write(tmp_path / "b.fastseg"))


def test_fewer_classes_than_the_self_test_shows_are_refused(tmp_path: Path) -> None:
    plan = full_plan()
    few = replace(plan, manifest=replace(plan.manifest, classes=plan.manifest.classes[:2]))
    with pytest.raises(BundleError, match="holds class id 2, the manifest names 2 classes"):
        RealtimeSegmentation(few.write(tmp_path / "a.fastseg"))
    # Or an engine alone, of an honest picture.
    plan = empty_plan(classes=plan.manifest.classes[:2]).with_artifact("x", argmax_onnx())
    plan = plan.with_scene(noise(), np.zeros((32, 48), np.uint8))
    with pytest.raises(NoBackendError, match="holds class id 2, the manifest names 2 classes"):
        RealtimeSegmentation(plan.write(tmp_path / "b.fastseg"))


def test_threads_are_a_number_and_no_more_than_there_are_cpus(
    bundle_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    RealtimeSegmentation(bundle_path, threads=cpu_count()).close()
    assert "taking" not in caplog.text
    RealtimeSegmentation(bundle_path, threads=100_000).close()
    assert f"threads is 100000; taking {cpu_count()}" in caplog.text
    for threads in (True, 0, -1, 2.0, "2"):
        with pytest.raises(ValueError, match="expected 1 or more"):
            RealtimeSegmentation(bundle_path, threads=threads)  # type: ignore[arg-type]


def test_engines_are_bounded_too(bundle_path: Path) -> None:
    RealtimeSegmentation(bundle_path, engines=8 * cpu_count(), threads=1).close()
    for engines in (8 * cpu_count() + 1, 100_000):
        with pytest.raises(ValueError, match=f"engines is {engines}; expected .* at most"):
            RealtimeSegmentation(bundle_path, engines=engines)
    with pytest.raises(ValueError, match="engines is True"):
        RealtimeSegmentation(bundle_path, engines=True)


@pytest.mark.parametrize("name", ["model.onnx", "model.pth", "model.fastseg", "model.bin", "m.jpg"])
def test_a_model_is_known_by_its_content(name: str, tmp_path: Path) -> None:
    frame = noise()
    expected = frame.argmax(2)
    bundle = full_plan().write(tmp_path / name)
    assert np.array_equal(RealtimeSegmentation(bundle).infer(frame), expected)
    bundle.write_bytes(argmax_onnx())
    assert np.array_equal(RealtimeSegmentation(bundle).infer(frame), expected)


@pytest.mark.parametrize("suffix", [".onnx", ".pth", ".safetensors", ".fastseg"])
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<!DOCTYPE html><html>not found</html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
        (b"", "an empty file"),
        (b"\x20\0\0\0TFL3" + bytes(50), "a TFLite model"),
        (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    ],
)
def test_another_kind_of_file_is_named(
    content: bytes, kind: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=kind):
        RealtimeSegmentation(path)
