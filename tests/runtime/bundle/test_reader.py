import io
import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.bundle.manifest import FileEntry
from fastseg_runtime.bundle.reader import BundleError, open_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.doubles.tiny_bundle import (
    BundlePlan,
    argmax_onnx,
    empty_plan,
    entry_of,
    full_plan,
    noise,
    strongest_channel,
)

WHOLE = full_plan(width=8, height=8)


def everything(path: Path) -> object:
    """All that a reader can get out of a bundle."""
    with open_bundle(path) as bundle:
        files = {
            entry: bundle.read(entry) for a in bundle.manifest.artifacts for entry in _paths(a)
        }
        scenes = [(image.tobytes(), classes.tobytes()) for image, classes in bundle.selftests()]
        return bundle.manifest, files, scenes


def _paths(artifact: object) -> list[str]:
    return [entry.path for entry in artifact.files]  # type: ignore[attr-defined]


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_reader_gives_back_what_was_written(bundle_path: Path) -> None:
    with open_bundle(bundle_path) as bundle:
        assert bundle.manifest == full_plan().manifest
        assert bundle.read("artifacts/cpu-fp32/model.onnx") == argmax_onnx()
        ((image, classes),) = bundle.selftests()
        bundle.verify()
    assert np.array_equal(strongest_channel(image), classes)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="fastseg-export"):
        open_bundle(tmp_path / "street.fastseg")


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_flipping_any_byte_gives_an_error_or_identical_results(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("flip") / "flipped.fastseg"
    content = bytearray(WHOLE.write(path).read_bytes())
    expected = everything(path)
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        found = everything(path)
    except BundleError:
        return
    assert found == expected


@given(length=st.integers(0, 2000))
@settings(max_examples=60, deadline=None)
def test_a_truncated_bundle_is_refused(
    length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cut") / "cut.fastseg"
    content = WHOLE.write(path).read_bytes()
    path.write_bytes(content[: min(length, len(content) - 1)])
    with pytest.raises(BundleError):
        everything(path)


@given(content=st.binary(max_size=400))
@settings(max_examples=60, deadline=None)
def test_a_foreign_file_is_refused(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("foreign") / "foreign.fastseg"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="is not a whole bundle"):
        open_bundle(path)


@pytest.mark.parametrize(
    "name",
    [
        "../escape",
        "artifacts/../../escape",
        "/etc/passwd",
        "C:/windows/escape",
        "artifacts\\..\\escape",
        "./manifest.json",
        "artifacts//model.onnx",
        "artifacts/model\n.onnx",
    ],
)
def test_reader_refuses_a_member_that_could_leave_the_bundle(name: str, tmp_path: Path) -> None:
    path = zip_of(tmp_path / "evil.fastseg", {"manifest.json": b"{}", name: b"x"})
    with pytest.raises(BundleError, match="refusing its member"):
        open_bundle(path)


def test_reader_refuses_a_manifest_that_lists_a_path_outside(tmp_path: Path) -> None:
    artifact = WHOLE.manifest.artifacts[0]
    outside = replace(artifact, files=(FileEntry("../model.onnx", 1, "0" * 64),))
    plan = BundlePlan(replace(WHOLE.manifest, artifacts=(outside,)), WHOLE.members)
    with pytest.raises(BundleError, match="could leave the folder"):
        open_bundle(plan.write(tmp_path / "evil.fastseg"))


@pytest.mark.parametrize("entry", ["../../etc/passwd", "artifacts/cpu-fp32/model", "", "selftest"])
def test_reader_refuses_an_entry_that_is_none_of_the_artifacts_files(
    entry: str, tmp_path: Path
) -> None:
    artifact = replace(WHOLE.manifest.artifacts[0], entry=entry)
    plan = BundlePlan(replace(WHOLE.manifest, artifacts=(artifact,)), WHOLE.members)
    with pytest.raises(BundleError, match="is none of its files"):
        open_bundle(plan.write(tmp_path / "entry.fastseg"))


def test_reader_refuses_two_records_of_one_file(tmp_path: Path) -> None:
    artifact = WHOLE.manifest.artifacts[0]
    (true,) = artifact.files[:1]
    false = replace(artifact, target="other", files=(replace(true, sha256="0" * 64),))
    both = replace(WHOLE.manifest, artifacts=(false, artifact))
    with pytest.raises(BundleError, match=f"two records of {true.path}"):
        open_bundle(BundlePlan(both, WHOLE.members).write(tmp_path / "two.fastseg"))


def test_reader_refuses_files_that_would_overwrite_each_other_when_extracted(
    tmp_path: Path,
) -> None:
    paths = ["artifacts/a/model.onnx", "artifacts/b/model.onnx"]
    files = tuple(entry_of(path, b"x") for path in paths)
    artifact = replace(WHOLE.manifest.artifacts[0], entry=paths[0], files=files)
    manifest = replace(WHOLE.manifest, artifacts=(artifact,), selftest=())
    path = BundlePlan(manifest, dict.fromkeys(paths, b"x")).write(tmp_path / "same.fastseg")
    with pytest.raises(BundleError, match="have the same name"):
        open_bundle(path)


def test_reader_refuses_symbolic_links(tmp_path: Path) -> None:
    path = WHOLE.write(tmp_path / "link.fastseg")
    link = zipfile.ZipInfo("artifacts/link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(BundleError, match="symbolic link"):
        open_bundle(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["artifacts/cpu-fp32/model.onnx", "artifacts/CPU-FP32/MODEL.onnx"])
def test_reader_refuses_a_name_that_occurs_twice_even_in_other_case(
    name: str, tmp_path: Path
) -> None:
    path = WHOLE.write(tmp_path / "twice.fastseg")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"another network")
    with pytest.raises(BundleError, match="occurs twice"):
        open_bundle(path)


def test_reader_refuses_compressed_members_so_that_nothing_can_inflate(tmp_path: Path) -> None:
    path = WHOLE.write(tmp_path / "bomb.fastseg", zipfile.ZIP_DEFLATED)
    with pytest.raises(BundleError, match="are stored"):
        open_bundle(path)


def test_reader_refuses_a_member_larger_than_declared(tmp_path: Path) -> None:
    members = {**WHOLE.members, "artifacts/cpu-fp32/model.onnx": b"\0" * 5_000_000}
    path = BundlePlan(WHOLE.manifest, members).write(tmp_path / "large.fastseg")
    with pytest.raises(BundleError, match="has 5000000 bytes, its manifest says"):
        open_bundle(path)


def test_reader_refuses_another_file_of_the_same_size(tmp_path: Path) -> None:
    member = "artifacts/cpu-fp32/model.onnx"
    other = bytes(reversed(WHOLE.members[member]))
    path = BundlePlan(WHOLE.manifest, {**WHOLE.members, member: other}).write(
        tmp_path / "swapped.fastseg"
    )
    with open_bundle(path) as bundle, pytest.raises(BundleError, match="SHA-256"):
        bundle.read(member)


def test_reader_refuses_a_manifest_whose_files_are_missing(tmp_path: Path) -> None:
    path = BundlePlan(WHOLE.manifest, {}).write(tmp_path / "hollow.fastseg")
    with pytest.raises(BundleError, match=r"artifacts/cpu-fp32/model\.onnx is missing"):
        open_bundle(path)


def test_reader_refuses_a_schema_that_it_does_not_know(tmp_path: Path) -> None:
    table = {**json.loads(WHOLE.manifest.to_json()), "schema": 2}
    path = zip_of(tmp_path / "new.fastseg", {"manifest.json": json.dumps(table).encode()})
    with pytest.raises(BundleError, match="schema 2, this fastseg reads 1"):
        open_bundle(path)


def test_a_file_of_another_kind_is_not_called_a_damaged_bundle(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(BundleError) as raised:
        open_bundle(path)
    assert str(raised.value) == (
        f"{path} is not a fastseg bundle; name a .fastseg file, made by fastseg-export"
    )


def test_reader_refuses_a_zip_of_something_else(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "holiday.fastseg", {"photo.jpg": b"x"})
    with pytest.raises(BundleError, match="not a fastseg bundle"):
        open_bundle(path)


def test_reader_reads_nothing_that_the_manifest_does_not_list(tmp_path: Path) -> None:
    path = WHOLE.write(tmp_path / "extra.fastseg")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.txt", "hello")
    with open_bundle(path) as bundle, pytest.raises(BundleError, match="lists no file"):
        bundle.read("notes.txt")


def _with_selftest(content: bytes) -> BundlePlan:
    entry = entry_of("selftest/0.npz", content)
    return BundlePlan(
        replace(empty_plan().manifest, selftest=(entry,)), {"selftest/0.npz": content}
    )


def test_a_pickled_selftest_is_never_loaded(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.savez(file, image=np.array([{"a": 1}], dtype=object), classes=np.zeros((1, 1), np.uint8))
    path = _with_selftest(file.getvalue()).write(tmp_path / "pickle.fastseg")
    with open_bundle(path) as bundle, pytest.raises(BundleError, match="no self-test scene"):
        bundle.selftests()


def test_a_selftest_of_the_wrong_shape_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.savez(file, image=np.zeros((4, 4), np.uint8), classes=np.zeros((4, 4), np.float32))
    path = _with_selftest(file.getvalue()).write(tmp_path / "shape.fastseg")
    with open_bundle(path) as bundle, pytest.raises(BundleError, match=r"expected uint8 image"):
        bundle.selftests()


def test_a_selftest_that_inflates_without_bound_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", bytes(600 << 20))
    path = _with_selftest(file.getvalue()).write(tmp_path / "inflate.fastseg")
    assert path.stat().st_size < 1 << 20
    with open_bundle(path) as bundle, pytest.raises(BundleError, match="claim 629145600 bytes"):
        bundle.selftests()


def _npz(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def _npy(shape: str, content: bytes = b"") -> bytes:
    """An array as numpy writes it, of any claim."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


def _torn() -> bytes:
    content = bytearray(
        _npz(image=_npy("(9, 9, 3)", noise(9, 9).tobytes()), classes=_npy("(1, 1)"))
    )
    start = content.find(b"image.npy") + 9
    content[start : start + 100] = bytes(byte ^ 0x5A for byte in content[start : start + 100])
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        _torn(),
        _npz(image=_npy("(99999, 99999, 3)"), classes=_npy("(1, 1)", b"0")),
        _npz(image=_npy("((("), classes=_npy("(1, 1)", b"0")),
        _npz(image=b"no array", classes=b"none"),
    ],
    ids=["torn", "a claim of 30 GB", "a header that does not end", "no array"],
)
def test_a_damaged_selftest_is_never_taken_for_a_failed_engine(
    content: bytes, tmp_path: Path
) -> None:
    plan = _with_selftest(content).with_artifact("cpu-fp32", argmax_onnx())
    path = plan.write(tmp_path / "damaged.fastseg")
    with open_bundle(path) as bundle, pytest.raises(BundleError, match="no self-test scene"):
        bundle.selftests()
    with pytest.raises(BundleError, match="no self-test scene"):
        RealtimeSegmentation(path)


def test_the_scenes_of_a_selftest_are_bounded_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = full_plan().with_scene(noise(), noise()[..., 0] % 3)
    path, one = plan.write(tmp_path / "two.fastseg"), 4 * noise()[..., 0].size
    for most, taken in ((2 * one + 2048, True), (2 * one, False)):  # headers take some bytes
        monkeypatch.setattr("fastseg_runtime.bundle.reader._SCENES_MAX_BYTES", most)
        with open_bundle(path) as bundle:
            if taken:
                assert len(bundle.selftests()) == 2
            else:
                with pytest.raises(BundleError, match="its arrays claim"):
                    bundle.selftests()


def test_extract_writes_one_targets_files_without_the_bundles_folders(
    bundle_path: Path, tmp_path: Path
) -> None:
    with open_bundle(bundle_path) as bundle:
        (file,) = bundle.extract("cpu-fp32", tmp_path / "out")
    assert file == tmp_path / "out" / "model.onnx"
    assert file.read_bytes() == argmax_onnx()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["model.onnx"]


def test_extract_of_an_unknown_target_lists_those_there_are(
    bundle_path: Path, tmp_path: Path
) -> None:
    with open_bundle(bundle_path) as bundle, pytest.raises(BundleError, match="it has cpu-fp32"):
        bundle.extract("coreml", tmp_path)


def test_extract_of_a_damaged_target_leaves_nothing_behind(tmp_path: Path) -> None:
    member = "artifacts/cpu-fp32/model.onnx"
    other = bytes(reversed(WHOLE.members[member]))
    path = BundlePlan(WHOLE.manifest, {**WHOLE.members, member: other}).write(tmp_path / "b")
    with open_bundle(path) as bundle, pytest.raises(BundleError, match="SHA-256"):
        bundle.extract("cpu-fp32", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A bundle whose target "ios" is a file and a folder of two, as a Core ML package is."""
    paths = [f"artifacts/ios/{name}" for name in ("a.txt", "m.mlpackage/x", "m.mlpackage/d/y")]
    files = tuple(entry_of(path, b"new") for path in paths)
    artifact = replace(WHOLE.manifest.artifacts[0], target="ios", entry=paths[0], files=files)
    manifest = replace(WHOLE.manifest, artifacts=(artifact,), selftest=())
    return BundlePlan(manifest, dict.fromkeys(paths, b"new")).write(tmp_path / "ios.fastseg")


def test_extract_replaces_a_folder_that_holds_nothing_else(package: Path, tmp_path: Path) -> None:
    with open_bundle(package) as bundle:
        written = bundle.extract("ios", tmp_path / "out")
        for file in written:
            file.write_bytes(b"old")
        assert bundle.extract("ios", tmp_path / "out") == written
    assert [file.read_bytes() for file in written] == [b"new"] * 3
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.txt", "m.mlpackage"]


def test_extract_puts_an_old_folder_back_whose_place_the_new_one_cannot_take(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_file, out = os.replace, tmp_path / "out"

    def refuse(source: Path, place: Path) -> None:
        if place == out / "m.mlpackage" and Path(source, "x").read_bytes() == b"new":
            raise PermissionError(13, "a scanner holds it")
        replace_file(source, place)

    with open_bundle(package) as bundle:
        for file in bundle.extract("ios", out):
            file.write_bytes(b"old")
        monkeypatch.setattr(os, "replace", refuse)
        with pytest.raises(PermissionError, match="a scanner holds it"):
            bundle.extract("ios", out)
    assert [(out / "m.mlpackage" / name).read_bytes() for name in ("x", "d/y")] == [b"old"] * 2
    assert sorted(p.name for p in out.iterdir()) == ["a.txt", "m.mlpackage"]


@pytest.mark.parametrize("name", ["a.txt", "m.mlpackage", "m.mlpackage/x"])
@pytest.mark.parametrize("there", [True, False])
def test_extract_replaces_no_link(name: str, there: bool, package: Path, tmp_path: Path) -> None:
    elsewhere, link = tmp_path / "elsewhere", tmp_path / "out" / name
    if there:
        elsewhere.mkdir() if name == "m.mlpackage" else elsewhere.touch()
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    with open_bundle(package) as bundle, pytest.raises(BundleError, match="exists; remove it"):
        bundle.extract("ios", tmp_path / "out")
    assert link.readlink() == elsewhere


@pytest.mark.parametrize("name", ["m.mlpackage/notes", "m.mlpackage", "a.txt/notes"])
def test_extract_keeps_what_else_is_there_and_writes_nothing_then(
    name: str, package: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "out" / name
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with open_bundle(package) as bundle, pytest.raises(BundleError, match="exists; remove it"):
        bundle.extract("ios", tmp_path / "out")
    assert [path for path in tmp_path.rglob("out/**/*") if path.is_file()] == [mine]
