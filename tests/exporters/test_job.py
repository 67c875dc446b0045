"""Converters that go wrong, in a child process: what is told, and that nothing is left."""

import time
from pathlib import Path

import pytest
from fastseg_exporters.calibration import Calibration
from fastseg_exporters.job import ConversionError, Job, run_job
from fastseg_exporters.source import NetworkSource
from fastseg_targets.profile import parse_target

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("outside_packages")]


def job_for(exporter: str, source: NetworkSource) -> Job:
    text = f'description = "d"\nexporter = "{exporter}"\nladder = ["fp32"]\nextra = "onnx"'
    return Job(source, parse_target("board", text), "fp32", Calibration(count=2))


def test_a_conversion_tells_its_time_and_memory(source: NetworkSource, tmp_path: Path) -> None:
    converted = run_job(job_for("onnx", source), tmp_path, timeout_s=300)
    assert (converted.folder / converted.artifact.entry).stat().st_size > 100_000
    assert converted.seconds > 0
    assert 50 < converted.peak_memory_mb < 4000


@pytest.mark.parametrize(
    ("exporter", "message"),
    [
        ("crash", "board in fp32 was killed by SIGSEGV"),
        ("flood", "ValueError: operator Frobnicate is unknown"),
        ("exit-quietly", "ended without a result"),
        ("no-such", "no exporter 'no-such'; choose one of"),
    ],
)
def test_a_converter_that_fails_is_told_by_its_last_words(
    exporter: str, message: str, source: NetworkSource, tmp_path: Path
) -> None:
    with pytest.raises(ConversionError, match=message) as caught:
        run_job(job_for(exporter, source), tmp_path, timeout_s=300)
    assert len(str(caught.value)) < 10_000


def test_a_converter_that_hangs_is_stopped_with_all_its_children(
    source: NetworkSource, tmp_path: Path
) -> None:
    with pytest.raises(ConversionError, match="more than 25 s and was stopped"):
        run_job(job_for("hang", source), tmp_path, timeout_s=25)
    pid = (tmp_path / "0/child.pid").read_text()
    deadline = time.monotonic() + 10
    while running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(pid)


def running(pid: str) -> bool:
    """Return whether a process is there and no zombie that waits to be collected."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
