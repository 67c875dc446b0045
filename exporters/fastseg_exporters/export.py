"""From a network and a list of targets to a bundle whose every artifact was judged."""

import dataclasses
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastseg_runtime.arrays.image import resize_bilinear
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import (
    SELFTEST_AGREEMENT,
    SELFTEST_AGREEMENTS,
    Manifest,
    OutputSpec,
)
from fastseg_runtime.bundle.reader import BundleError, open_bundle
from fastseg_runtime.bundle.usage import describe_usage, require_usage, strictest
from fastseg_runtime.bundle.writer import (
    check_writable,
    entry,
    pack_selftests,
    read_members,
    write_bundle,
)
from fastseg_runtime.engines.engine import find_precision
from fastseg_targets.target import Target

from fastseg import FastSegNet, Network
from fastseg.deploy import OutputKind
from fastseg_exporters.convert.job import Converted, Job, run_job, run_variants
from fastseg_exporters.convert.progress import Progressing, silent
from fastseg_exporters.convert.source import Calibration, NetworkSource, recorded_data, unseen_split
from fastseg_exporters.gate.artifact_record import bounds_ms, members, record
from fastseg_exporters.gate.first_manifest import (
    describe_network,
    now,
    selftest_scenes,
)
from fastseg_exporters.gate.graph_check import check_graph
from fastseg_exporters.gate.ladder import GateError, Rung, Tools, climb_down
from fastseg_exporters.gate.proof import Prover
from fastseg_exporters.gate.reference import VerificationSet, pytorch_runner, smaller_mask_cost

FEW_SCENES = 8  # to rank layers on
CHECKED_FRAMES = 3  # to compare the graph with the network on, beside the self-test


@dataclass(frozen=True)
class Plan:
    """What to export.

    Attributes:
        source: the network.
        targets: in the order wanted.
        out: the bundle.
        calibration: images for int8; without data, those of the training if they are here.
        verify_data: a data set whose val split has labels; None: that of the training if it is
            here, else generated scenes, agreement only.
        verify_images: how many of them.
        output: "classes" or "logits".
        mask_stride: 1, 2 or 4.
        strict: a failed gate stops the export instead of stepping down.
        resume: skip targets that the bundle has from the same network and options.
        force: replace a bundle of another network.
        timeout_s: for each conversion.
        require_usage: "commercial" refuses weights that are not known to allow it.
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
    require_usage: str | None = None


@dataclass
class Outcome:
    """What became of each target; a failed one does not stop the others."""

    manifest: Manifest
    failed: dict[str, str] = dataclasses.field(default_factory=dict)  # target -> why
    skipped: list[str] = dataclasses.field(default_factory=list)  # in the bundle already


def export_bundle(
    plan: Plan, tell: Callable[[str], None] = lambda line: None, progress: Progressing = silent
) -> Outcome:
    """Export, verify and write the bundle after each target, so that nothing done is lost.

    Args:
        plan: what to export.
        tell: told what happens, one line at a time.
        progress: told how far each step is.

    Raises:
        OSError: the bundle cannot be written where it is to be.
        UsageRefusedError: the weights are not for the use that the plan requires.
        ValueError: the bundle is another network's, data and network do not fit, or the graph
            to convert gives another answer than the network.
        CheckpointError, DataError: from opening the network and the data.
    """
    check_writable(plan.out)
    network = plan.source.open()
    info = network.info
    require_usage(plan.require_usage, info.usage, network.name)
    usage = describe_usage(info.usage)
    tell(f"network {network.name}: {info.variant}, {info.width}x{info.height}; weights: {usage}")
    if not isinstance(network.model, FastSegNet):
        for note in network.check(plan.source.spec):
            tell(note)
    plan = _with_data(plan, network, tell)
    runner = pytorch_runner(network, plan.mask_stride)
    selftests = selftest_scenes(network, runner)
    manifest, contents = _start(plan, network, selftests)
    if manifest.artifacts:  # what they were held to: an older bundle has fewer scenes
        with open_bundle(plan.out) as bundle:
            selftests = bundle.selftests()
    outcome, mask_cost = Outcome(manifest), None
    scenes, few = (
        VerificationSet(
            plan.verify_data,
            count,
            runner.infer_new,
            len(info.classes),
            unseen_split(info.trained_on, plan.verify_data),
        )
        for count in (plan.verify_images, FEW_SCENES)
    )
    progress("comparing the graph with the network", 0, 0)
    images = [image_HW3 for image_HW3, _ in selftests] + scenes.first_images(CHECKED_FRAMES)
    keep_norms = check_graph(network, [_at_size(network, image) for image in images], tell)
    if plan.mask_stride > 1:
        mask_cost = smaller_mask_cost(network, scenes)
        if mask_cost is not None:
            tell(f"masks at 1/{plan.mask_stride} cost {100 * mask_cost:.2f} points of mIoU alone")
    for target in plan.targets:
        if plan.resume and _is_there(outcome.manifest, target, plan):
            tell(f"{target.name}: in {plan.out} already")
            outcome.skipped.append(target.name)
            continue
        tell(f"{target.name}: converting")
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="fastseg-") as name:
            folder = Path(name)
            prover = Prover(outcome.manifest, scenes, few, selftests, folder, progress)
            try:
                seen = {int(i) for ids_HW in scenes.references(progress) for i in np.unique(ids_HW)}
                if len(seen) == 1:
                    only = info.classes[seen.pop()].name
                    tell(f"{target.name}: PyTorch sees {only} alone, so agreement says little")
                rung = _make(plan, target, network, keep_norms, prover, tell)
            except (GateError, RuntimeError, BundleError) as error:
                outcome.failed[target.name] = str(error)
                tell(f"{target.name}: {error}")
                continue
            _add(outcome, contents, plan, target, rung, time.monotonic() - start, mask_cost)
            write_bundle(plan.out, outcome.manifest, contents)
    return outcome


def _with_data(plan: Plan, network: Network, tell: Callable[[str], None]) -> Plan:
    """Fill in the training's own data where the user named none."""
    if plan.calibration.data is None or plan.verify_data is None:
        found = recorded_data(network.info)
        if found.note:
            tell(found.note)
        data = plan.calibration.data or found.spec
        plan = dataclasses.replace(
            plan,
            calibration=dataclasses.replace(plan.calibration, data=data),
            verify_data=plan.verify_data or found.spec,
        )
    if plan.calibration.data is None and any(
        find_precision(name).calibrated for target in plan.targets for name in target.ladder
    ):
        tell("int8 ranges come from generated scenes; --calibration DATA is better")
    if plan.verify_data is None:
        tell("no labelled images: artifacts need agree with PyTorch alone; --verify DATA is better")
    return plan


def _start(
    plan: Plan, network: Network, selftests: list[tuple[Array, Array]]
) -> tuple[Manifest, dict[str, bytes | Path]]:
    """Return the manifest and members to add to: those of the bundle there is, or new ones."""
    packed = pack_selftests(selftests)
    output = OutputSpec(plan.output, plan.mask_stride)
    fresh = dataclasses.replace(
        describe_network(network, plan.out.stem, output, created=now()),
        selftest=tuple(entry(name, data) for name, data in packed.items()),
    )
    if not plan.out.exists() or plan.force:
        return fresh, dict(packed)
    old, contents = read_members(plan.out)
    # Bundles of before the field state no usage; one that gains targets keeps the strictest.
    usage = strictest((old.model.usage, fresh.model.usage))
    old, fresh = (_with_usage(manifest, usage) for manifest in (old, fresh))
    if (old.model, old.input, old.output) != (fresh.model, fresh.input, fresh.output):
        raise ValueError(
            f"{plan.out} holds another network, size or output; "
            "choose another file with -o, or replace it with --force"
        )
    return dataclasses.replace(old, tool=fresh.tool), dict(contents)


def _with_usage(manifest: Manifest, usage: str) -> Manifest:
    return dataclasses.replace(manifest, model=dataclasses.replace(manifest.model, usage=usage))


def _at_size(network: Network, image_HW3: Array) -> Array:
    width, height = network.info.width, network.info.height
    return np.ascontiguousarray(resize_bilinear(image_HW3, width, height))[None]


def _make(
    plan: Plan,
    target: Target,
    network: Network,
    keep_norms: tuple[str, ...],
    prover: Prover,
    tell: Callable[[str], None],
) -> Rung:
    def new_folder() -> Path:
        return Path(tempfile.mkdtemp(dir=prover.folder))

    def convert(job: Job) -> Converted:
        prover.progress(f"{target.name}: converting to {job.precision}", 0, 0)
        return run_job(job, new_folder(), plan.timeout_s)

    def convert_each(job: Job, layers: tuple[str, ...]) -> list[Converted]:
        what = f"{target.name}: converting with one layer in float"
        alone = [(layer,) for layer in layers]
        show = prover.progress
        return run_variants(
            job, alone, new_folder(), plan.timeout_s, lambda done: show(what, done, len(alone))
        )

    tools = Tools(convert, convert_each, prover.verify, prover.likeness, tell, prover.progress)
    job = Job(
        plan.source,
        target,
        target.ladder[0],
        plan.calibration,
        plan.output,
        plan.mask_stride,
        keep_norms=keep_norms,
        network_sha256=network.sha256,
    )
    rung = climb_down(job, tools, plan.strict)
    # The folder goes away: take the files along.
    contents = {name: file.read_bytes() for name, file in members(target, rung.converted).items()}
    return dataclasses.replace(rung, contents=contents)


def _add(
    outcome: Outcome,
    contents: dict[str, bytes | Path],
    plan: Plan,
    target: Target,
    rung: Rung,
    seconds: float,
    mask_cost: float | None,
) -> None:
    """Put an artifact into the manifest and its files among the members, in place of older ones."""
    for name in [name for name in contents if name.startswith(f"artifacts/{target.name}/")]:
        del contents[name]
    contents.update(rung.contents)
    manifest = outcome.manifest
    artifact = record(target, rung.precision, rung.converted, rung.contents)
    extra = {
        **artifact.extra,
        "options": options_of(plan, target),
        SELFTEST_AGREEMENT: rung.verification.selftest_agreement,
        SELFTEST_AGREEMENTS: list(rung.verification.selftest_agreements),
        "bounds_ms": bounds_ms(manifest, target, rung.precision),
        "float_layers": list(rung.float_layers),
        "mask_cost": mask_cost,
        "export": {
            "seconds": round(seconds, 1),
            "conversion_seconds": round(rung.converted.seconds, 1),
            "peak_memory_mb": round(rung.converted.peak_memory_mb),
        },
    }
    artifact = dataclasses.replace(
        artifact,
        io={**artifact.io, "num_classes": len(manifest.classes)},
        attempts=rung.attempts,
        verification=rung.verification.to_table(),
        extra=extra,
    )
    others = tuple(a for a in manifest.artifacts if a.target != target.name)
    outcome.manifest = dataclasses.replace(manifest, artifacts=(*others, artifact))


def options_of(plan: Plan, target: Target) -> dict[str, Any]:
    """Return what besides the network decides an artifact, as JSON has it, for --resume."""
    return {
        "calibration": dataclasses.asdict(plan.calibration),
        "verify": plan.verify_data,
        "verify_images": plan.verify_images,
        "ladder": list(target.ladder),
        "gate": dataclasses.asdict(target.gate),
        "exporter": target.options,
    }


def _is_there(manifest: Manifest, target: Target, plan: Plan) -> bool:
    return any(
        a.target == target.name and a.extra.get("options") == options_of(plan, target)
        for a in manifest.artifacts
    )
