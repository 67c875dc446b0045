"""Files are told apart by what is in them, whatever they are called."""

from pathlib import Path

import pytest
from fastseg_runtime.bundle.file_kind import file_kind
from hypothesis import given
from hypothesis import strategies as st

from tests.doubles.foreign_files import FOREIGN, OURS, UNSAFE, each


@pytest.mark.parametrize(("kind", "content"), each(FOREIGN, UNSAFE, OURS))
def test_a_file_is_told_by_its_content(tmp_path: Path, kind: str, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert file_kind(path) == kind


def test_a_folder_is_told_too(tmp_path: Path) -> None:
    assert file_kind(tmp_path) == "a folder"


@given(content=st.binary(max_size=700))
def test_any_bytes_have_a_kind(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    assert file_kind(path)


@given(cut=st.integers(1, 600), which=st.integers(0, 3))
def test_a_file_cut_anywhere_has_a_kind(
    tmp_path_factory: pytest.TempPathFactory, cut: int, which: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut"
    path.write_bytes(WHOLE[which][:cut])
    assert file_kind(path)


WHOLE = [content for _, content in each(OURS, {"an ONNX model": FOREIGN["an ONNX model"]})][:4]
