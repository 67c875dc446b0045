"""Recognising the board: files that NVIDIA's images have, and their absence."""

from pathlib import Path

import pytest
from fastseg_runtime.engines.tensorrt.platform import read_board, read_l4t


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64", "35.4.1"),
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64", "36.4.3"),
        ("# R39 (release), REVISION: 2, GCID: 1, BOARD: generic", "39.2"),
        ("something else", ""),
    ],
)
def test_the_l4t_version_is_read_from_its_release_file(
    text: str, version: str, tmp_path: Path
) -> None:
    (tmp_path / "nv_tegra_release").write_text(text + "\n")
    assert read_l4t(tmp_path / "nv_tegra_release") == version


def test_the_board_is_named_by_the_device_tree_without_its_final_zero(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    assert read_board(tmp_path / "model") == "NVIDIA Jetson Orin Nano Developer Kit"


def test_a_pc_has_neither(tmp_path: Path) -> None:
    assert read_l4t(tmp_path / "absent") == read_board(tmp_path / "absent") == ""
