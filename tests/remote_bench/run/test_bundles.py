import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
from fastseg_exporters.gate.referees.referee import Referee
from fastseg_runtime.bundle.manifest import ClassInfo
from fastseg_runtime.bundle.reader import open_bundle
from fastseg_runtime.engines.own_onnx import OwnFile
from fastseg_targets.device import load_device
from remote_bench.cli.beforehand import check
from remote_bench.host.errors import BenchError, UsageError
from remote_bench.run.benchmark import Benchmark, Untrained
from remote_bench.run.bundles import choose_bundle, open_onnx, target_for
from remote_bench.run.sweep import parse_sweep, untrained_bundle

from tests.boards.measuring import Watcher
from tests.doubles.own_onnx import own_onnx
from tests.doubles.tiny_bundle import full_plan

BOARD = load_device("generic-x86")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder, and a cache of the test's own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "here"


@pytest.mark.parametrize(
    ("device", "target"),
    [
        ("orin-nano", "jetson-fp16"),
        ("thor", "jetson-fp16"),
        ("generic-x86", "cpu-fp32"),
        ("raspberry-pi-5", "cpu-fp32"),
        ("raspberry-pi-4", "cpu-fp32"),
    ],
)
def test_a_board_gets_a_float_target_that_it_can_run(device, target):
    assert target_for(load_device(device)).name == target


@pytest.mark.parametrize(("is_here", "target"), [(True, "rockchip-fp16"), (False, "cpu-fp32")])
def test_a_vendors_target_is_for_those_who_have_its_toolchain(monkeypatch, is_here, target):
    monkeypatch.setattr(Referee, "is_installed", is_here)
    assert target_for(load_device("rk3588")).name == target


def test_an_onnx_file_of_others_is_exported_for_the_board_once(folder):
    onnx.save(own_onnx(), "own.onnx")
    onnx.save(own_onnx(size=("h", "w"), picture="uint8"), "open.onnx")
    watch = Watcher()
    for name, said in [("own", {"normalization": "imagenet"}), ("open", {"size": "96x64"})]:
        bundle = choose_bundle(Path(f"{name}.onnx"), None, BOARD, watch, OwnFile(**said))
        made = bundle.stat().st_mtime_ns
        again = choose_bundle(Path(f"{name}.onnx"), None, BOARD, watch, OwnFile(**said))
        assert again == bundle and bundle.stat().st_mtime_ns == made
        with open_bundle(bundle) as opened:
            (artifact,) = opened.manifest.artifacts
            assert artifact.target == "cpu-fp32" and len(opened.manifest.classes) == 4
            assert artifact.verification["agreement"] >= 0.999
    assert opened.manifest.input.width == 96


def test_an_onnx_file_is_letterboxed_if_that_is_said(folder):
    onnx.save(own_onnx(), "own.onnx")
    source, network = open_onnx(Path("own.onnx"), OwnFile(normalization="unit", fit="letterbox"))
    assert source.fit == network.info.input_spec().resize == "letterbox"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "--normalization imagenet, unit, centred"),
        ({"normalization": "imagenet", "size": "32x32"}, "takes pictures of 64x48 alone"),
        ({"normalization": "imagenet", "output_name": "9"}, "has no output '9'"),
        ({"normalization": "mars"}, "no normalisation 'mars'"),
    ],
)
def test_what_an_onnx_file_needs_is_asked_before_any_board_is_touched(folder, said, message):
    onnx.save(own_onnx(auxiliary=True), "own.onnx")
    benchmark = Benchmark(bundle=Path("own.onnx"), own_file=OwnFile(**said))
    with pytest.raises(UsageError, match=message) as caught:
        check(["localhost"], benchmark, None)
    assert "\n" not in str(caught.value)


def test_the_newest_bundle_of_the_folder_is_taken_and_named(folder):
    for name in ("old", "new"):
        (folder / f"{name}.fastseg").write_bytes(b"")
        time.sleep(0.02)
    watch = Watcher()
    assert choose_bundle(None, None, BOARD, watch).name == "new.fastseg"
    assert watch.notes == ["bundle: new.fastseg, the newest in this folder"]


def test_a_named_bundle_is_taken_as_it_is(folder):
    assert choose_bundle(folder / "x.fastseg", None, BOARD, Watcher()) == folder / "x.fastseg"


def save_network(file: Path) -> None:
    from fastseg import FastSegNet
    from fastseg.checkpoint import CheckpointInfo, save_checkpoint

    file.parent.mkdir(parents=True)
    info = CheckpointInfo("nano", (ClassInfo("a", (0, 0, 0)), ClassInfo("b", (9, 9, 9))), 64, 32)
    save_checkpoint(file, FastSegNet(2, "nano"), info)


def test_a_file_for_a_host_is_named_by_its_content(folder):
    (folder / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (folder / "jetson.local").write_text("what an earlier run printed")
    with pytest.raises(UsageError, match="photo.jpg is neither a host nor a bundle, but a JPEG"):
        check(["photo.jpg"], Benchmark(), None)
    check(["jetson.local"], Benchmark(), None)
    with pytest.raises(UsageError, match="neither a host nor a bundle, but a text file"):
        check([str(folder / "jetson.local")], Benchmark(), None)


@pytest.mark.parametrize(
    ("usage", "message"), [("", "use not stated"), ("research", "research use only")]
)
def test_weights_not_for_the_required_use_are_refused_before_a_board_is_touched(
    folder, usage, message
):
    wanted = Benchmark(require_usage="commercial")
    with pytest.raises(BenchError, match="lite-camvid: research use only") as refused:
        check(["board"], wanted, None)  # nothing here: the shipped network would be taken
    assert refused.value.exit_code == 1
    write_bundle_of(usage, folder / "street.fastseg")
    for named in (None, folder / "street.fastseg"):
        with pytest.raises(BenchError, match=f"street.fastseg: {message}, --require-usage") as no:
            check(["board"], dataclasses.replace(wanted, bundle=named), None)
        assert no.value.exit_code == 1
    write_bundle_of("commercial", folder / "street.fastseg")
    check(["board"], wanted, None)
    with pytest.raises(UsageError, match="--require-usage is 'any'; expected commercial"):
        check(["board"], Benchmark(require_usage="any"), None)


def write_bundle_of(usage: str, path: Path) -> None:
    plan = full_plan()
    model = dataclasses.replace(plan.manifest.model, usage=usage)
    manifest = dataclasses.replace(plan.manifest, model=model)
    dataclasses.replace(plan, manifest=manifest).write(path)


@pytest.mark.slow
def test_without_a_bundle_the_newest_run_is_exported_once_into_the_cache(folder):
    save_network(folder / "runs/street/model.safetensors")
    watch = Watcher()
    bundle = choose_bundle(None, None, BOARD, watch)
    assert "the newest run here, exported as cpu-fp32 to" in watch.notes[0]
    with open_bundle(bundle) as opened:
        opened.verify()
        assert [artifact.target for artifact in opened.manifest.artifacts] == ["cpu-fp32"]
    before = bundle.stat().st_mtime_ns
    assert choose_bundle(None, None, BOARD, Watcher()) == bundle
    assert bundle.stat().st_mtime_ns == before


@pytest.mark.slow
def test_without_a_bundle_or_a_run_the_shipped_network_is_exported_and_measured(folder):
    """Weights ship inside the package: a copy of it with weights comes first on the path."""
    import fastseg

    site = folder.parent / "site"
    unwanted = shutil.ignore_patterns("__pycache__", "weights")
    shutil.copytree(Path(fastseg.__file__).parent, site / "fastseg", ignore=unwanted)
    save_network(site / "fastseg/weights/base-camvid.safetensors")
    done = subprocess.run(
        [sys.executable, "-m", "remote_bench", "localhost", "--seconds=1", "--idle=0.3", "--json",
         "--allow-busy"],
        env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "base-camvid, shipped with fastseg, exported as cpu-fp32 to" in done.stderr
    assert json.loads(done.stdout)["bundle"]["variant"] == "nano"


@pytest.mark.slow
def test_without_any_network_the_error_says_how_to_make_one(folder, monkeypatch):
    from fastseg import pretrained

    monkeypatch.setattr(pretrained, "FOLDER", folder)
    with pytest.raises(UsageError, match=r"no \*.fastseg in this folder, .*fastseg-train"):
        choose_bundle(None, None, BOARD, Watcher())


@pytest.mark.slow
def test_boards_side_by_side_export_one_after_another(folder, monkeypatch):
    at_work, together = [], []

    def export_bundle(plan, note):
        at_work.append(plan.out)
        together.append(len(at_work))
        time.sleep(0.1)
        plan.out.touch()
        at_work.remove(plan.out)
        return SimpleNamespace(failed={})

    monkeypatch.setattr("fastseg_exporters.export.export_bundle", export_bundle)
    sizes = parse_sweep("nano", "64x32,128x64") * 2
    with ThreadPoolExecutor() as boards:
        made = list(boards.map(lambda size: untrained_bundle(size, None, BOARD, Watcher()), sizes))
    assert together == [1, 1]
    assert made[:2] == made[2:]


def test_a_bundle_that_lacks_a_target_is_gone_on_with_and_not_taken_for_whole(folder, monkeypatch):
    onnx.save(own_onnx(), "own.onnx")
    plans, failed = [], {"cpu-fp32": "out of memory"}

    def export_bundle(plan, note):
        plans.append(plan)
        plan.out.touch()
        if len(plans) == 1:
            raise KeyboardInterrupt
        return SimpleNamespace(failed=failed, manifest=SimpleNamespace(artifacts=(1,)))

    monkeypatch.setattr("fastseg_exporters.export.export_bundle", export_bundle)
    watch, said = Watcher(), OwnFile(normalization="imagenet")
    with pytest.raises(KeyboardInterrupt):
        choose_bundle(Path("own.onnx"), None, BOARD, watch, said)
    partial = choose_bundle(Path("own.onnx"), None, BOARD, watch, said)
    assert "cpu-fp32 is left out: out of memory" in watch.notes
    failed = {}
    whole = choose_bundle(Path("own.onnx"), None, BOARD, watch, said)
    assert choose_bundle(Path("own.onnx"), None, BOARD, watch, said) == whole != partial
    assert [plan.resume for plan in plans] == [False, True, True]


@pytest.mark.slow
def test_a_sweep_exports_each_network_once(folder):
    size, again = Untrained("nano", 64, 32), Watcher()
    bundle = untrained_bundle(size, None, BOARD, Watcher())
    assert untrained_bundle(size, None, BOARD, again) == bundle
    assert again.notes == []
