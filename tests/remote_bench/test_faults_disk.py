"""The fault table's disks: full, filling up, read-only; after each, nothing of ours is on them."""

import contextlib
import os
import subprocess
import time
from pathlib import Path

import pytest
from remote_bench.host.errors import MissingRequirement
from remote_bench.link.connection import Connection

from tests.boards.measuring import ENDED_S, Watcher, run
from tests.boards.sshd import files_in
from tests.boards.stand_ins import make_bundle

pytestmark = [
    pytest.mark.slow,  # needs openssh-server
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root"),
]


@contextlib.contextmanager
def small_disk(folder: Path, size: str, options: str = ""):
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}{options}", "tmpfs", str(folder)]
    subprocess.run(command, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_noticed_before_the_upload_and_nothing_stays(sshd, host, tmp_path, within):
    bundle, begin = make_bundle(tmp_path / "big.fastseg", 8_000_000), time.monotonic()
    with small_disk(sshd.folder / "disk", "16m") as disk:
        with pytest.raises(MissingRequirement, match=r"MB free, .* needed: free some"):
            run(host, bundle=bundle, base=str(disk))
        within("command ended", ENDED_S, begin)
        assert files_in(disk) == []


def test_a_disk_that_fills_up_during_the_upload_is_a_clear_error_and_nothing_stays(
    sshd, host, tmp_path, within
):
    bundle = make_bundle(tmp_path / "big.fastseg", 30_000_000)
    with small_disk(sshd.folder / "disk", "40m") as disk:
        fill = disk / "somebody-elses"

        class Filler(Watcher):
            def progress(self, done, total, fps=None) -> None:
                if total > 1e7 and not fill.exists():
                    fill.write_bytes(bytes(30_000_000))

        with pytest.raises(MissingRequirement, match="No space left"):
            run(host, Filler(), bundle=bundle, base=str(disk))
        within("command ended", ENDED_S, fill.stat().st_mtime - time.time() + time.monotonic())
        fill.unlink()
        assert files_in(disk) == []


def test_a_disk_that_is_full_when_the_engine_is_saved_is_a_clear_error_and_nothing_stays(
    sshd, host, bundle, faults
):
    faults(at_open="fill")
    with small_disk(sshd.folder / "disk", "24m") as disk:
        report = run(host, bundle=bundle, base=str(disk))
        assert report.error.kind == "disk_full"
        assert "No space left on device" in report.error.message
        assert files_in(disk) == []


def test_a_disk_without_room_for_an_engine_is_noticed_before_it_is_built(sshd, host):
    with (
        small_disk(sshd.folder / "disk", "24m") as disk,
        Connection(host, base=str(disk)) as session,
    ):
        session.request("room", bytes=1_000_000)
        with pytest.raises(MissingRequirement, match=r"MB free, .* needed: free some"):
            session.request("room", bytes=64_000_000)


@pytest.mark.parametrize(
    ("options", "said"), [(",ro", "Read-only file system"), (",noexec", "mounted noexec")]
)
def test_a_place_that_cannot_hold_the_work_folder_is_named_with_the_reason(
    sshd, host, options, said
):
    refused = pytest.raises(MissingRequirement, match=f"no place for a work folder: .*{said}")
    with small_disk(sshd.folder / "disk", "16m", options) as disk, refused:
        Connection(host, base=str(disk))
