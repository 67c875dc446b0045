from pathlib import Path

import pytest
from fastseg_runtime.arrays.shared_files import write_file


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_file(tmp_path / "a.bin", b"first")
    with pytest.raises(TypeError):
        write_file(tmp_path / "a.bin", "no bytes")  # type: ignore[arg-type]
    assert (tmp_path / "a.bin").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_name_as_long_as_the_disk_allows_can_be_written(tmp_path: Path) -> None:
    write_file(tmp_path / ("a" * 255), b"content")
    assert (tmp_path / ("a" * 255)).read_bytes() == b"content"
