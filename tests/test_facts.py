"""What is known of an engine, a precision or an exporter is written once, and right everywhere."""

import ast
import importlib.resources
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fastseg_exporters.convert.exporter import EXPORTERS
from fastseg_exporters.gate.record import bounds_ms
from fastseg_exporters.gate.verify import Verification, failures
from fastseg_exporters.tables import target_rows
from fastseg_runtime.bundle.manifest import Artifact, Manifest
from fastseg_runtime.cli.examine import examine_device
from fastseg_runtime.engines.engine import ENGINES, PRECISIONS, Precision, engines, find_precision
from fastseg_runtime.engines.opening import Wish
from fastseg_runtime.engines.selection import Processor, rank
from fastseg_runtime.engines.selftest import required_agreement
from fastseg_targets.device import Peak, load_device, recognise
from fastseg_targets.target import Gate, load_target, target_names
from remote_bench.host.errors import MissingRequirement
from remote_bench.run.bundles import target_for
from remote_bench.run.wheels import builds_engines, engine_modules, fetch_wheels, missing_packages

from tests.doubles.tiny_bundle import empty_plan

ROOT = Path(__file__).parents[1]
OUTSIDE = ROOT / "tests/exporters/packages"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
RUNTIME = tomllib.loads((ROOT / "runtime/pyproject.toml").read_text("utf-8"))
WHEELS = tomllib.loads((ROOT / "tools/remote_bench/wheels.toml").read_text("utf-8"))
# Where the records are, and how TensorRT itself calls the precisions.
RECORDS = ("engine.py", "exporter.py", "builder.py")
TARGET = """
description = "A program of torch.export in bf16"
exporter = "pt2"
ladder = ["autocast", "fp32"]
devices = ["my-board"]
"""
BOARD = """
description = "A board of mine"
recognise.model = ["My Board"]
peak.fp16_gflops = 1000.0
peak.bandwidth_gb_s = 10.0
"""
ARM, X86 = (Processor(arm, int8_dot_product=True) for arm in (True, False))


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A format with its engine and precision, a target and a board: one place each."""
    monkeypatch.syspath_prepend(str(OUTSIDE))
    copy = tmp_path / "fastseg_targets"
    shutil.copytree(ROOT / "targets/fastseg_targets", copy)
    (copy / "profiles/my-target.toml").write_text(TARGET)
    (copy / "devices/my-board.toml").write_text(BOARD)
    files: Callable[[Any], Any] = importlib.resources.files
    monkeypatch.setattr(
        importlib.resources, "files", lambda name: copy if name == copy.name else files(name)
    )


def bundle() -> Manifest:
    plan = empty_plan()
    for target, form, precision, backend in [
        ("cpu-fp32", "onnx", "fp32", "onnxruntime"),
        ("android-fp32", "tflite", "fp32", "litert"),
        ("pytorch", "pytorch", "fp32", "pytorch"),
        ("my-other", "pt2", "fp32", "pt2"),
        ("my-target", "pt2", "autocast", "pt2"),
    ]:
        requires = {"backend": backend}
        plan = plan.with_artifact(target, b"x", form, precision=precision, requires=requires)
    return plan.manifest


MINE = Artifact("my-target", "pt2", "autocast", "model.pt2", (), requires={"backend": "pt2"})


def board(**modules: str) -> dict[str, Any]:
    """Return a probe of my board."""
    python = {"version": "3.11.2", "implementation": "CPython", "platform": "linux-aarch64"}
    found = {"numpy": None, **dict.fromkeys(engine_modules()), **modules}
    python |= {"libc": "glibc 2.36", "modules": found}  # type: ignore[dict-item]
    return {"python": python, "board": {"model": "My Board rev 2"}, "system": {}}


@pytest.mark.usefixtures("outside")
def test_the_list_of_targets_knows_a_format_from_outside() -> None:
    rows = {row["target"]: row for row in target_rows(map(load_target, target_names()))}
    assert rows["my-target"] == {
        "target": "my-target",
        "description": "A program of torch.export in bf16",
        "ladder": "autocast > fp32",
        "needs": "pip install fastseg-pt2",
        "here": "yes",
        "verified_by": "PyTorch's exported programs",
    }


@pytest.mark.usefixtures("outside")
def test_the_doctor_knows_an_engine_from_outside_and_its_version() -> None:
    (item,) = [i for i in examine_device(None, Wish())["backends"] if i["backend"] == "pt2"]
    assert item["usable"] and item["version"] == torch.__version__


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(
    ("processor", "first"),
    [(X86, ["cpu-fp32", "android-fp32"]), (ARM, ["android-fp32", "cpu-fp32"])],
)
def test_an_engine_and_a_precision_from_outside_have_their_place_in_the_order(
    processor: Processor, first: list[str]
) -> None:
    order = [candidate.artifact.target for candidate in rank(bundle(), processor)]
    assert order == [*first, "my-other", "my-target", "pytorch"]


@pytest.mark.usefixtures("outside")
def test_a_board_gets_the_wheels_of_an_engine_from_outside() -> None:
    assert "torch" in engine_modules()
    assert missing_packages(board(), [MINE]) == ["numpy", "fastseg-pt2", "torch"]
    assert missing_packages(board(numpy="2.4", torch="2.9"), [MINE]) == []
    assert not builds_engines(board(torch="2.9")) and builds_engines(board(tensorrt="10.3"))


@pytest.mark.usefixtures("outside")
def test_the_wheels_of_an_engine_from_outside_are_pinned_by_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(MissingRequirement, match=r"fastseg-pt2==1\.0 torch==2\.9\.1$"):
        fetch_wheels(board(), ["numpy", "fastseg-pt2", "torch"])


@pytest.mark.usefixtures("outside")
def test_bounds_and_limits_of_a_precision_from_outside_are_those_of_its_record() -> None:
    assert required_agreement(MINE) == 0.9
    assert failures(Verification("pt2", "scenes", 20, 0.899, 1.0), Gate(), "autocast")
    assert not failures(Verification("pt2", "scenes", 20, 0.9, 1.0), Gate(), "autocast")
    mine, target = load_device("my-board"), load_target("my-target")
    assert recognise(board()) == mine and target_for(mine) == target
    assert mine.bound_ms(10**9, 0, "autocast") == pytest.approx(2.0)
    manifest = bundle()
    weights = bounds_ms(manifest, target, "fp32")["my-board"]
    assert 0 < bounds_ms(manifest, target, "autocast")["my-board"] <= weights


def test_a_precision_that_nobody_knows_has_a_bound_by_memory_alone_and_comes_last() -> None:
    unknown = find_precision("fp12")
    assert unknown == Precision("fp12") and unknown.bytes_per_weight == 0
    worst = [max(kind) for kind in zip(*(p.ranks for p in PRECISIONS.values()), strict=True)]
    assert all(mine >= other for mine, other in zip(unknown.ranks, worst, strict=True))


def test_engines_are_listed_without_loading_them() -> None:
    code = (
        "import sys; from fastseg_runtime.engines.engine import engines, precisions\n"
        "assert engines()['pt2'].title and 'autocast' in precisions()\n"
        "print(sorted({'numpy', 'torch', 'coremltools', 'onnxruntime'} & set(sys.modules)))"
    )
    path = os.pathsep.join([str(OUTSIDE), os.environ.get("PYTHONPATH", "")])
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert out.stdout.strip() == "[]", out.stderr


def test_a_record_that_does_not_load_is_told_by_the_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fastseg.backends]\nbroken = no_such_module:ENGINE\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert engines()["broken"].formats == ()
    (item,) = [i for i in examine_device(None, Wish())["backends"] if i["backend"] == "broken"]
    assert "does not load: No module named 'no_such_module'" in item["reason"]


# What cannot be derived agrees.


def extras(project: dict[str, Any]) -> dict[str, list[str]]:
    return dict(project["project"]["optional-dependencies"])


@pytest.mark.parametrize("exporter", EXPORTERS.values(), ids=lambda exporter: exporter.name)
def test_the_extra_of_an_exporter_brings_its_modules_and_its_engine_opens_what_it_makes(
    exporter: Any,
) -> None:
    (extra,) = re.findall(r"fastseg-edge\[(.+)\]", exporter.install)
    wanted = extras(PROJECT)[extra]
    wanted += [
        name
        for e in re.findall(r"fastseg-edge\[(\w+)\]", str(wanted))
        for name in extras(PROJECT)[e]
    ]
    brought = {re.split("[<>=]", name)[0].replace("-", "_") for name in wanted}
    assert set(exporter.modules) <= brought
    assert ENGINES[exporter.engine].formats
    assert set(exporter.precisions) <= set(PRECISIONS)


def test_an_extra_of_the_runtime_brings_each_engine_that_pip_installs_on_a_device() -> None:
    brought = " ".join(name for names in extras(RUNTIME).values() for name in names)
    for engine in ENGINES.values():
        for wheel in engine.wheels:
            assert wheel in brought, f"{wheel} is in no extra of runtime/pyproject.toml"


def test_mypy_is_told_of_each_library_of_an_engine_or_a_converter() -> None:
    (override,) = PROJECT["tool"]["mypy"]["overrides"]
    told = {name.removesuffix(".*") for name in override["module"]}
    used = {m for record in (*ENGINES.values(), *EXPORTERS.values()) for m in record.modules}
    assert used - {"torch", "onnx"} <= told  # these two have types of their own


def test_remote_bench_has_pins_for_every_wheel_that_it_may_bring() -> None:
    wheels = {wheel for engine in ENGINES.values() for wheel in engine.wheels}
    pinned = {name for machines in WHEELS.values() for pins in machines.values() for name in pins}
    assert pinned == {"numpy", *wheels}


def test_a_precisions_rate_is_one_that_boards_have() -> None:
    assert all(p.rate in Peak.__dataclass_fields__ for p in PRECISIONS.values())


def test_no_table_and_no_if_names_engines_or_precisions_beside_their_records() -> None:
    """Two names in one literal are a table; a comparison with an engine's name is a fact of it."""
    for package in ("runtime/fastseg_runtime", "targets", "exporters", "tools/remote_bench"):
        for file in (ROOT / package).rglob("*.py"):
            if file.name in RECORDS or file.name.startswith("judge_"):
                continue
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                names = literals_of(node)
                place = f"{file}:{getattr(node, 'lineno', 0)}"
                few = 1 if isinstance(node, ast.Compare) else 2
                assert len(names & set(ENGINES)) < few, place
                assert len(names & set(PRECISIONS)) < 2, place


def literals_of(node: ast.AST) -> set[object]:
    """Return the constants that stand side by side in one literal or comparison."""
    items: list[ast.expr | None] = []
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        items = [*node.elts]
    elif isinstance(node, ast.Dict):
        items = [*node.keys]
    elif isinstance(node, ast.Compare):
        items = [node.left, *node.comparators]
    return {item.value for item in items if isinstance(item, ast.Constant)}
