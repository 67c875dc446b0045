"""Converters that go wrong, in a child process: what is told, and that nothing is left."""

import dataclasses
import tempfile
import time
from pathlib import Path

import pytest
from fastseg_exporters.convert.exporter import ConversionError
from fastseg_exporters.convert.job import Converted, Job, run_job, run_variants
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_targets.target import load_target, parse_target

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


@pytest.mark.parametrize("target", ["cpu-int8", "jetson-int8", "android-int8"])
def test_conversions_in_one_process_are_those_that_processes_of_their_own_give(
    target: str, source: NetworkSource, tmp_path: Path
) -> None:
    data = Calibration("synthetic:size=96x64,train=2,val=1,test=1", 2)
    job = Job(source, load_target(target), "int8", data)
    told: list[int] = []
    alone = run_job(job, new_folder(tmp_path), timeout_s=600)
    names = [(), (alone.artifact.layers[-1],), (alone.artifact.layers[0],)]
    together = run_variants(job, names, new_folder(tmp_path), 600, told.append)
    last = dataclasses.replace(job, keep_float=names[-1])
    last_alone = run_job(last, new_folder(tmp_path), timeout_s=600)
    assert entry(together[0]) == entry(alone)
    assert entry(together[2]) == entry(last_alone) != entry(alone)
    assert told == sorted(told) and set(told) <= {0, 1, 2}


def new_folder(parent: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=parent))


def entry(converted: Converted) -> bytes:
    return (converted.folder / converted.artifact.entry).read_bytes()


def running(pid: str) -> bool:
    """Return whether a process is there and no zombie that waits to be collected."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
