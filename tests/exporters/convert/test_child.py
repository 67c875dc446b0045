"""Converters that go wrong, in a child process: what is told, and that nothing is left."""

import dataclasses
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fastseg_exporters.convert.child import Converted, convert
from fastseg_exporters.convert.exporter import Conversion, ConversionError, Recipe
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.gate.referees.referee import REFEREES
from fastseg_runtime.bundle.manifest import numbered_classes
from fastseg_targets.target import load_target, parse_target

pytestmark = pytest.mark.usefixtures("outside_packages")


def with_exporter(exporter: str, source: NetworkSource) -> Conversion:
    text = f'description = "d"\nexporter = "{exporter}"\nladder = ["fp32"]\nextra = "onnx"'
    return Conversion(Recipe(source), parse_target("board", text), "fp32")


@pytest.mark.slow
def test_a_conversion_tells_its_time_and_memory(source: NetworkSource, tmp_path: Path) -> None:
    (converted,) = convert([with_exporter("onnx", source)], tmp_path, timeout_s=300)
    assert (converted.folder / converted.artifact.entry).stat().st_size > 100_000
    assert converted.seconds > 0
    assert 50 < converted.peak_memory_mb < 4000


@pytest.mark.parametrize(
    ("exporter", "message"),
    [
        ("crash", "board in fp32 was killed by SIGSEGV"),
        pytest.param("flood", "ValueError: operator Frobnicate is unknown", marks=pytest.mark.slow),
        pytest.param("gives-a-path", "its exporter gave what cannot be", marks=pytest.mark.slow),
        pytest.param("exit-quietly", "ended without a result", marks=pytest.mark.slow),
        pytest.param("no-such", "no exporter 'no-such'; choose one of", marks=pytest.mark.slow),
    ],
)
def test_a_converter_that_fails_is_told_by_its_last_words(
    exporter: str, message: str, source: NetworkSource, tmp_path: Path
) -> None:
    with pytest.raises(ConversionError, match=message) as caught:
        convert([with_exporter(exporter, source)], tmp_path, timeout_s=300)
    assert len(str(caught.value)) < 10_000


@pytest.mark.slow
def test_a_file_of_the_current_folder_takes_no_librarys_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("queue", "onnx", "torch"):
        (tmp_path / f"{library}.py").write_text("raise SystemExit('a stranger')")
    (tmp_path / "beside_them.py").write_text(
        "from torch import nn\ndef net(): return nn.Conv2d(3, 2, 1)"
    )
    monkeypatch.chdir(tmp_path)
    source = NetworkSource("beside_them:net", numbered_classes(2), size=(64, 48))
    (converted,) = convert([with_exporter("onnx", source)], tmp_path, timeout_s=300)
    assert converted.artifact.format == "onnx"


@pytest.mark.slow
def test_a_converter_that_hangs_is_stopped_with_all_its_children(
    source: NetworkSource, tmp_path: Path
) -> None:
    with pytest.raises(ConversionError, match="more than 25 s and was stopped"):
        convert([with_exporter("hang", source)], tmp_path, timeout_s=25)
    (pid,) = (file.read_text() for file in tmp_path.glob("*/0/child.pid"))
    assert ended(pid)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "referee"), [("rockchip-fp16", "rknn"), ("snapdragon-int8", "qualcomm-htp")]
)
def test_a_toolchain_at_work_ends_with_its_conversion(
    target: str,
    referee: str,
    source: NetworkSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path))
    at_work = tmp_path / "pid"
    python = REFEREES[referee].python
    python.parent.mkdir(parents=True)
    python.write_text(
        f"#!/bin/sh\necho $$ > {at_work}.new; mv {at_work}.new {at_work}; exec sleep 60"
    )
    python.chmod(0o755)
    (REFEREES[referee].environment / "ready").touch()
    profile = load_target(target)
    data = Calibration("synthetic:size=96x64,train=2,val=1,test=1", 2)

    def stop_once_at_work(done: int) -> None:
        if at_work.exists():
            raise KeyboardInterrupt

    conversion = Conversion(Recipe(source, data), profile, profile.ladder[0])
    with pytest.raises(KeyboardInterrupt):
        convert([conversion], tmp_path, 300, stop_once_at_work)
    assert ended(at_work.read_text().strip())


def ended(pid: str) -> bool:
    """Return whether a process ends that was killed."""
    deadline = time.monotonic() + 10
    while running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not running(pid)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cpu-int8", "jetson-int8", "android-int8"])
def test_conversions_in_one_process_are_those_that_processes_of_their_own_give(
    target: str, source: NetworkSource, tmp_path: Path
) -> None:
    data = Calibration("synthetic:size=96x64,train=2,val=1,test=1", 2)
    int8 = Conversion(Recipe(source, data), load_target(target), "int8")
    told: list[int] = []
    (alone,) = convert([int8], tmp_path, timeout_s=600)
    names = [(), (alone.artifact.layers[-1],), (alone.artifact.layers[0],)]
    all_three = [dataclasses.replace(int8, keep_float=kept) for kept in names]
    together = convert(all_three, tmp_path, 600, told.append)
    (last_alone,) = convert(all_three[-1:], tmp_path, timeout_s=600)
    assert entry(together[0]) == entry(alone)
    assert entry(together[2]) == entry(last_alone) != entry(alone)
    assert told == sorted(told) and set(told) <= {0, 1, 2}


def entry(converted: Converted) -> bytes:
    return (converted.folder / converted.artifact.entry).read_bytes()


def running(pid: str) -> bool:
    """Return whether a process is there and no zombie that waits to be collected."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


THEIRS = """
import torch
from torch import nn

class Drawn(nn.Module):
    def __init__(self, seeded):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 2, 3, padding=1)
        if not seeded:
            torch.seed()
        self.drawn = torch.randn(1, 2, 1, 1)  # no part of the state dict

    def forward(self, x):
        return self.layer(x) * self.drawn

def seeded():
    return Drawn(True)

def unseeded():
    return Drawn(False)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["seeded", "unseeded"])
def test_a_factory_that_draws_what_is_no_weight_has_to_seed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "drawn_nets.py").write_text(THEIRS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "drawn_nets", raising=False)
    source = NetworkSource(f"drawn_nets:{name}", numbered_classes(2), size=(64, 32))
    network = source.open()
    plain = with_exporter("onnx", source)
    recipe = replace(plain.recipe, network_sha256=network.sha256, sample=network.sample())
    asked = [replace(plain, recipe=recipe)]
    if name == "seeded":
        assert convert(asked, tmp_path, timeout_s=300)
        return
    with pytest.raises(ConversionError, match="makes another network each time.*seed what it"):
        convert(asked, tmp_path, timeout_s=300)
