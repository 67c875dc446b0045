import zipfile
from pathlib import Path

import numpy as np
import pytest
from fastseg_runtime.bundle.manifest import (
    Artifact,
    ClassInfo,
    InputSpec,
    Manifest,
    ModelInfo,
    OutputSpec,
)
from fastseg_runtime.bundle.writer import (
    check_writable,
    entry,
    pack_selftests,
    read_members,
    write_bundle,
)

NAME, CONTENT = "artifacts/cpu/model.onnx", b"weights" * 100
MANIFEST = Manifest(
    name="street",
    created="2026-01-01T00:00:00Z",
    tool="test",
    model=ModelInfo("nano", 1, 1, "0" * 64),
    classes=(ClassInfo("road", (1, 2, 3)),),
    input=InputSpec(48, 32),
    output=OutputSpec(),
    artifacts=(Artifact("cpu", "onnx", "fp32", NAME, (entry(NAME, CONTENT),)),),
)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.fastseg"
    write_bundle(path, MANIFEST, {NAME: CONTENT})
    assert read_members(path) == (MANIFEST, {NAME: CONTENT})


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / "a.fastseg", tmp_path / "b.fastseg"]
    for path in paths:
        write_bundle(path, MANIFEST, {NAME: CONTENT, "selftest/0.npz": b"x"})
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_members_are_stored_so_that_an_engine_may_map_them(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a.fastseg", MANIFEST, {NAME: CONTENT})
    with zipfile.ZipFile(tmp_path / "a.fastseg") as bundle:
        assert {info.compress_type for info in bundle.infolist()} == {zipfile.ZIP_STORED}


def test_a_write_that_fails_leaves_the_old_bundle_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "a.fastseg"
    write_bundle(path, MANIFEST, {NAME: CONTENT})
    before = path.read_bytes()
    with pytest.raises(FileNotFoundError):
        write_bundle(path, MANIFEST, {NAME: CONTENT, "z": tmp_path / "no such file"})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.fastseg"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.safetensors", "is a safetensors file, no bundle; name another file with -o"),
        ("model.pth", "is a torch file, no bundle"),
        ("folder", "is a folder, no bundle"),
        ("b" * 245 + ".fastseg", "has 245 characters; expected 200 at most"),
        ("b" * 300, "File name too long; name another file"),
        ("ü" * 200 + ".fastseg", "File name too long; name another file"),
        ("model.safetensors/new.fastseg", "Not a directory; name another file"),
        ("cut.onnx", "is a zip archive that is damaged or cut short, no bundle"),
        ("new\n.fastseg", "none of them a control character"),
    ],
)
def test_what_is_no_bundle_or_cannot_be_one_is_refused_before_any_work(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with zipfile.ZipFile(tmp_path / "model.pth", "w") as archive:
        archive.writestr("model/data.pkl", b"")
    (tmp_path / "cut.onnx").write_bytes(b"PK\x03\x04")
    for replace in (False, True):
        with pytest.raises(OSError, match=message):
            check_writable(tmp_path / name, replace)


def test_a_new_name_and_a_bundle_may_be_written(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a.fastseg", MANIFEST, {NAME: CONTENT})
    for name in ("a.fastseg", "new.fastseg", "new/folders/a.fastseg"):
        check_writable(tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == ["a.fastseg"]


def test_what_is_left_of_a_bundle_is_replaced_by_force_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.fastseg"
    write_bundle(path, MANIFEST, {NAME: CONTENT})
    for length, kind in ((500, "a zip archive that is damaged or cut short"), (0, "an empty file")):
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(OSError, match=f"is {kind}; replace it with --force, or name another"):
            check_writable(path)
        check_writable(path, replace=True)


def test_selftests_load_without_pickle(tmp_path: Path) -> None:
    image_HW3 = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    packed = pack_selftests([(image_HW3, image_HW3[..., 0])])
    (tmp_path / "0.npz").write_bytes(packed["selftest/0.npz"])
    with np.load(tmp_path / "0.npz", allow_pickle=False) as scene:
        assert np.array_equal(scene["image"], image_HW3)
        assert np.array_equal(scene["classes"], image_HW3[..., 0])
