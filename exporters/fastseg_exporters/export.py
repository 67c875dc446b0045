"""From a network and a list of targets to a bundle whose every artifact is proven."""

import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.manifest import Artifact, InputSpec, Manifest, ModelInfo, OutputSpec
from fastseg_runtime.metrics import Array, agreement
from fastseg_runtime.selftest import RECORDED
from fastseg_targets.device import load_device
from fastseg_targets.profile import Target

import fastseg
from fastseg import DeployGraph, Network, profile
from fastseg.data import open_dataset
from fastseg.deploy import OutputKind
from fastseg_exporters.bundle_writer import (
    entry,
    files_of,
    pack_selftests,
    read_members,
    write_bundle,
)
from fastseg_exporters.calibration import Calibration
from fastseg_exporters.job import Converted, Job, run_job
from fastseg_exporters.ladder import GateError, Rung, Tools, climb_down
from fastseg_exporters.reference import VerificationSet, reference_runner
from fastseg_exporters.source import NetworkSource
from fastseg_exporters.verify import Verification, verify

SELFTEST_SCENES = 2
QUICK_IMAGES = 8  # to rank layers on
RATE_OF = {"int8-weights": "fp16", "palettized": "fp16"}  # what they compute in


@dataclass(frozen=True)
class Plan:
    """What to export.

    Attributes:
        source: the network.
        targets: in the order wanted.
        out: the bundle.
        calibration: images for int8.
        verify_data: a data set whose val split has labels; None: generated scenes, agreement only.
        verify_images: how many of them.
        output: "classes" or "logits".
        mask_stride: 1, 2 or 4.
        strict: a failed gate stops the export instead of stepping down.
        resume: skip targets that the bundle has from the same network and options.
        force: replace a bundle of another network.
        timeout_s: for each conversion.
    """

    source: NetworkSource
    targets: tuple[Target, ...]
    out: Path
    calibration: Calibration = dataclasses.field(default_factory=Calibration)
    verify_data: str | None = None
    verify_images: int = 20
    output: OutputKind = "classes"
    mask_stride: int = 1
    strict: bool = False
    resume: bool = False
    force: bool = False
    timeout_s: float = 900.0


@dataclass
class Outcome:
    """What became of each target; a failed one does not stop the others."""

    manifest: Manifest
    failed: dict[str, str] = dataclasses.field(default_factory=dict)  # target -> why
    skipped: list[str] = dataclasses.field(default_factory=list)  # in the bundle already


def export_bundle(plan: Plan, tell: Callable[[str], None] = lambda line: None) -> Outcome:
    """Export, verify and write the bundle after each target, so that nothing done is lost.

    Raises:
        ValueError: the bundle is another network's, or data and network do not fit.
        CheckpointError, DataError: from opening the network and the data.
    """
    network = plan.source.open()
    info = network.info
    tell(f"network {network.name}: {info.variant}, {info.width}x{info.height}")
    manifest, members = _start(plan, network)
    scenes = _scenes(plan, network, plan.verify_images)
    outcome = Outcome(manifest)
    for target in plan.targets:
        if plan.resume and _is_there(outcome.manifest, target, plan):
            tell(f"{target.name}: in {plan.out} already")
            outcome.skipped.append(target.name)
            continue
        tell(f"{target.name}: converting")
        with tempfile.TemporaryDirectory(prefix="fastseg-") as folder:
            try:
                rung = _make(plan, target, network, outcome.manifest, scenes, Path(folder), tell)
            except (GateError, RuntimeError) as error:
                outcome.failed[target.name] = str(error)
                tell(f"{target.name}: {error}")
                continue
            _add(outcome, members, plan, target, rung)
            write_bundle(plan.out, outcome.manifest, members)
    return outcome


def _start(plan: Plan, network: Network) -> tuple[Manifest, dict[str, bytes | Path]]:
    """Return the manifest and members to add to: those of the bundle there is, or new ones."""
    fresh, selftests = _new_manifest(plan, network)
    if not plan.out.exists() or plan.force:
        return fresh, dict(selftests)
    old, members = read_members(plan.out)
    same = (old.model, old.input, old.output) == (fresh.model, fresh.input, fresh.output)
    if not same:
        raise ValueError(
            f"{plan.out} holds another network, size or output; "
            "choose another file with -o, or replace it with --force"
        )
    return dataclasses.replace(old, tool=fresh.tool), dict(members)


def _new_manifest(plan: Plan, network: Network) -> tuple[Manifest, dict[str, bytes]]:
    info = network.info
    cost = profile(network.model, (info.width, info.height))
    scenes = selftest_scenes(network)
    packed = pack_selftests(scenes)
    manifest = Manifest(
        name=plan.out.stem,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        tool=f"fastseg-edge {fastseg.__version__}",
        model=ModelInfo(
            variant=info.variant,
            parameters=cost.parameters,
            macs=cost.macs,
            checkpoint_sha256=network.sha256,
            trained_on=info.trained_on,
            data_licence=info.data_licence,
        ),
        classes=info.classes,
        input=InputSpec(info.width, info.height, mean=info.mean, std=info.std),
        output=OutputSpec(plan.output, plan.mask_stride),
        selftest=tuple(entry(name, data) for name, data in packed.items()),
    )
    return manifest, packed


def selftest_scenes(network: Network) -> list[tuple[Array, Array]]:
    """Return generated scenes of the network's size with PyTorch's class maps."""
    info = network.info
    runner = _runner(network)
    dataset = open_dataset(f"synthetic:{info.width}x{info.height}", "test")
    images = [dataset[index].image_HW3 for index in range(SELFTEST_SCENES)]
    return [(image_HW3, runner.infer_new(image_HW3)) for image_HW3 in images]


def _runner(network: Network) -> Any:
    info = network.info
    graph = DeployGraph(network.model, info.width, info.height, info.mean, info.std).eval()
    return reference_runner(graph, InputSpec(info.width, info.height))


def _scenes(plan: Plan, network: Network, count: int) -> VerificationSet:
    classes = len(network.info.classes)
    return VerificationSet(plan.verify_data, count, _runner(network), classes)


def _make(
    plan: Plan,
    target: Target,
    network: Network,
    manifest: Manifest,
    scenes: VerificationSet,
    folder: Path,
    tell: Callable[[str], None],
) -> Rung:
    counter = iter(range(10_000))
    selftests = selftest_scenes(network)

    def convert(job: Job) -> Converted:
        own = folder / str(next(counter))
        own.mkdir()
        return run_job(job, own, plan.timeout_s)

    def check(job: Job, converted: Converted, on: VerificationSet) -> Verification:
        with _session(manifest, job, converted, folder / "trial.fastseg") as session:
            selftest = min(agreement(session.infer(image), ids) for image, ids in selftests)
            return dataclasses.replace(verify(session, on), selftest_agreement=selftest)

    quick = VerificationSet(
        plan.verify_data, QUICK_IMAGES, _runner(network), len(network.info.classes)
    )
    tools = Tools(
        convert,
        lambda job, converted: check(job, converted, scenes),
        lambda job, converted: check(job, converted, quick),
        tell,
    )
    job = Job(
        plan.source,
        target,
        target.ladder[0],
        plan.calibration,
        plan.output,
        plan.mask_stride,
        network_sha256=network.sha256,
    )
    rung = climb_down(job, tools, plan.strict)
    # The folder goes away: take the files along.
    contents = {name: file.read_bytes() for name, file in _members(target, rung.converted).items()}
    return dataclasses.replace(rung, contents=contents)


def _members(target: Target, converted: Converted) -> dict[str, Path]:
    return files_of(converted.folder, f"artifacts/{target.name}")


@contextlib.contextmanager
def _session(
    manifest: Manifest, job: Job, converted: Converted, path: Path
) -> Iterator[RealtimeSegmentation]:
    """Open an artifact as a device would: in a bundle, by the runtime."""
    files = _members(job.target, converted)
    artifact = _artifact(job.target, job.precision, converted, files)
    trial = dataclasses.replace(manifest, artifacts=(artifact,), selftest=())
    write_bundle(path, trial, dict(files))
    with RealtimeSegmentation(
        path, backend=_backend(artifact), target=job.target.name, selftest=False
    ) as session:
        yield session


def _backend(artifact: Artifact) -> str:
    """Return the backend that proves an artifact here: Core ML itself runs on macOS alone."""
    off_macos = artifact.format == "coreml" and sys.platform != "darwin"
    return "mil" if off_macos else "auto"


def _artifact(
    target: Target, precision: str, converted: Converted, files: dict[str, Path] | dict[str, bytes]
) -> Artifact:
    made = converted.artifact
    return Artifact(
        target=target.name,
        format=made.format,
        precision=precision,
        entry=f"artifacts/{target.name}/{made.entry}",
        files=tuple(entry(name, content) for name, content in files.items()),
        io=made.io,
        requires=made.requires,
        toolchain=made.toolchain,
        extra=made.extra,
    )


def _add(
    outcome: Outcome, members: dict[str, bytes | Path], plan: Plan, target: Target, rung: Rung
) -> None:
    prefix = f"artifacts/{target.name}/"
    for name in [name for name in members if name.startswith(prefix)]:
        del members[name]
    members.update(rung.contents)
    manifest = outcome.manifest
    artifact = _artifact(target, rung.precision, rung.converted, rung.contents)
    weights = sum(file.bytes for file in artifact.files if file.path == artifact.entry)
    extra = {
        **artifact.extra,
        "options": options_of(plan),
        RECORDED: rung.verification.selftest_agreement,
        "bounds_ms": bounds_ms(manifest, target, rung.precision, weights),
        "export": {
            "seconds": round(rung.converted.seconds, 1),
            "peak_memory_mb": round(rung.converted.peak_memory_mb),
        },
    }
    artifact = dataclasses.replace(
        artifact,
        attempts=rung.attempts,
        verification=rung.verification.to_table(),
        extra=extra,
    )
    others = tuple(a for a in manifest.artifacts if a.target != target.name)
    outcome.manifest = dataclasses.replace(manifest, artifacts=(*others, artifact))


def options_of(plan: Plan) -> dict[str, Any]:
    """Return what besides the network decides an artifact, for --resume to compare."""
    return {
        "calibration": dataclasses.asdict(plan.calibration),
        "verify": plan.verify_data,
        "verify_images": plan.verify_images,
    }


def _is_there(manifest: Manifest, target: Target, plan: Plan) -> bool:
    return any(
        a.target == target.name and a.extra.get("options") == options_of(plan)
        for a in manifest.artifacts
    )


def bounds_ms(
    manifest: Manifest, target: Target, precision: str, weight_bytes: int
) -> dict[str, float]:
    """Return device -> roofline bound: no network of this size is faster there. No prediction."""
    pixels = manifest.input.width * manifest.input.height
    moved = weight_bytes + 4 * pixels  # bytes in, ids out, weights: each once
    rate = RATE_OF.get(precision, precision)
    bounds = {
        name: load_device(name).bound_ms(manifest.model.macs, moved, rate)
        for name in target.devices
    }
    return {name: round(bound, 3) for name, bound in bounds.items() if bound is not None}
