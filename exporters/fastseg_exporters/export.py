"""From a network and a list of targets to a bundle whose every artifact was judged."""

import dataclasses
import hashlib
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastseg_runtime.arrays.command import BUGS
from fastseg_runtime.arrays.shared_files import cache_folder, locked
from fastseg_runtime.bundle.manifest import Manifest
from fastseg_runtime.bundle.usage import describe_usage, require_usage
from fastseg_runtime.bundle.writer import check_writable
from fastseg_runtime.engines.engine import find_precision
from fastseg_targets.target import Target

from fastseg import CheckpointInfo, FastSegNet, Network
from fastseg.own_code import describe_error
from fastseg_exporters.convert.exporter import Recipe, find_exporter
from fastseg_exporters.convert.progress import Progressing, silent
from fastseg_exporters.convert.source import recorded_data
from fastseg_exporters.gate.graph_check import refuse_unpooling
from fastseg_exporters.gate.ladder import climb_down
from fastseg_exporters.gate.record import GrowingBundle, Passed
from fastseg_exporters.gate.referees.hearing import hear, refusal
from fastseg_exporters.gate.referees.referee import Referee, referees
from fastseg_exporters.gate.reference import VERIFY_IMAGES, pytorch_runner
from fastseg_exporters.gate.workshop import Workshop, open_workshop


@dataclass(frozen=True)
class Plan:
    """What to export.

    Attributes:
        recipe: the network and what is made of it; without calibration data, those of the training
            are taken if they are here.
        targets: in the order wanted.
        out: the bundle.
        verify_data: a data set whose val split has labels; None: that of the training if it is
            here, else generated scenes, agreement only.
        verify_images: how many of them.
        confidence: artifacts also give how sure the network is, and it is calibrated.
        strict: a failed gate stops the export instead of stepping down.
        resume: skip targets that the bundle has from the same network and options.
        force: replace a bundle of another network, or what is left of one.
        timeout_s: for each conversion.
        require_usage: "commercial" refuses weights that are not known to allow it.
        referees: installed ones that judge the artifacts besides; they refuse none.
    """

    recipe: Recipe
    targets: tuple[Target, ...]
    out: Path
    verify_data: str | None = None
    verify_images: int = VERIFY_IMAGES
    confidence: bool = False
    strict: bool = False
    resume: bool = False
    force: bool = False
    timeout_s: float = 900.0
    require_usage: str | None = None
    referees: tuple[Referee, ...] = ()


@dataclass
class Outcome:
    """What became of each target; a failed one does not stop the others."""

    manifest: Manifest
    failed: dict[str, str] = field(default_factory=dict)  # target -> why
    skipped: list[str] = field(default_factory=list)  # in the bundle already


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
        ValueError: the bundle is another network's, data and network do not fit, the network
            unpools, or the graph to convert gives another answer than it.
        CheckpointError, DataError: from opening the network and the data.
    """
    check_writable(plan.out, plan.force)
    network = plan.recipe.source.open()
    require_usage(plan.require_usage, network.info.usage, network.name)
    _introduce(network, plan.recipe.source.spec, tell)
    plan = _with_data(plan, network.info, tell)
    with _alone(plan.out, tell):
        return _grow(plan, network, tell, progress)


@contextmanager
def _alone(out: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Wait until no other export of this user adds to a bundle: each writes all that it holds."""
    locks = cache_folder() / "exports"
    name = hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:32]
    with ExitStack() as stack:
        with suppress(OSError):  # a read-only cache: as if there were no other
            locks.mkdir(mode=0o700, parents=True, exist_ok=True)
            told = f"waiting for another export into {out}"
            stack.enter_context(locked(locks / f"{name}.lock", lambda: tell(told)))
        yield


def _grow(
    plan: Plan, network: Network, tell: Callable[[str], None], progress: Progressing
) -> Outcome:
    """Let the bundle grow by each target, whatever becomes of the others."""
    runner = pytorch_runner(network, plan.recipe.mask_stride)
    bundle = GrowingBundle(plan.out, network, plan.recipe, runner, plan.force)
    outcome = Outcome(bundle.manifest)
    with open_workshop(
        network,
        runner,
        plan.recipe,
        bundle,
        verify_data=plan.verify_data,
        verify_images=plan.verify_images,
        confidence=plan.confidence,
        timeout_s=plan.timeout_s,
        tell=tell,
        progress=progress,
    ) as workshop:
        mask_cost = workshop.mask_cost(network)
        climbed: dict[str, Passed] = {}
        for target in plan.targets:
            options = options_of(plan, target)
            if plan.resume and bundle.has(target, options):
                tell(f"{target.name}: in {plan.out} already")
                outcome.skipped.append(target.name)
                continue
            tell(f"{target.name}: converting")
            start = time.monotonic()
            try:
                workshop.say_if_one_class(target)
                passed = _as_before(climbed, target, tell)
                passed = passed or workshop.keep(climb_down(target, workshop, plan.strict))
                climbed.setdefault(_climb(target), passed)
                bundle.add(passed, options, time.monotonic() - start, mask_cost)
            except Exception as error:  # of the gate, a converter; engines raise their own classes
                outcome.failed[target.name] = _why(error)
                tell(f"{target.name}: {outcome.failed[target.name]}")
            workshop.clear()
        hear(plan.referees, workshop, {target.name for target in plan.targets})
        for target in plan.targets:
            if target.name not in {*outcome.failed, *outcome.skipped}:
                _hear_its_own(target, plan, workshop, outcome)
    outcome.manifest = bundle.manifest
    return outcome


def _why(error: Exception) -> str:
    """Return why a target failed; a mistake of ours shows its trace besides."""
    if isinstance(error, BUGS):
        traceback.print_exception(error)
    ours = isinstance(error, RuntimeError | ValueError)  # whose messages are sentences
    return str(error) if ours else describe_error(error)


def _hear_its_own(target: Target, plan: Plan, workshop: Workshop, outcome: Outcome) -> None:
    """Let the referee whose toolchain made an artifact judge it; it counts as failed if refused."""
    name = find_exporter(target.exporter).referee
    if not name:
        return
    if name not in {referee.name for referee in plan.referees}:
        hear([referees()[name]], workshop, {target.name})
    for artifact in workshop.bundle.manifest.artifacts:
        if artifact.target == target.name and (why := refusal(name, artifact)):
            workshop.bundle.drop(target.name)  # nobody takes what the device would not
            outcome.failed[target.name] = why


def _climb(target: Target) -> str:
    """Return what decides where a target's ladder ends: exporter, rungs and gate, not the name."""
    return repr((target.exporter, sorted(target.options.items()), target.ladder, target.gate))


def _as_before(
    climbed: dict[str, Passed], target: Target, tell: Callable[[str], None]
) -> Passed | None:
    """Return what a target before came to that asks for the very same, as this one's."""
    before = climbed.get(_climb(target))
    if before is None:
        return None
    tell(f"{target.name}: the files of {before.conversion.target.name}, judged there")
    converted = dataclasses.replace(before.converted, seconds=0.0)
    conversion = dataclasses.replace(before.conversion, target=target)
    return dataclasses.replace(before, conversion=conversion, converted=converted)


def _introduce(network: Network, spec: str, tell: Callable[[str], None]) -> None:
    info, usage = network.info, describe_usage(network.info.usage)
    tell(f"network {network.name}: {info.variant}, {info.width}x{info.height}; weights: {usage}")
    if not isinstance(network.model, FastSegNet):
        for note in network.check(spec):
            tell(note)
        refuse_unpooling(network)


def _with_data(plan: Plan, info: CheckpointInfo, tell: Callable[[str], None]) -> Plan:
    """Fill in the training's own data where the user named none."""
    calibration, verify_data = plan.recipe.calibration, plan.verify_data
    if calibration.data is None or verify_data is None:
        found = recorded_data(info)
        if found.note:
            tell(found.note)
        calibration = dataclasses.replace(calibration, data=calibration.data or found.spec)
        verify_data = verify_data or found.spec
    if any(find_precision(name).calibrated for target in plan.targets for name in target.ladder):
        if calibration.data is None:
            tell("int8 ranges come from generated scenes; --calibration DATA is better")
        elif calibration.note:
            tell(calibration.note)
    if verify_data is None:
        tell("no labelled images: artifacts need only agree with it; --verify DATA is better")
    recipe = dataclasses.replace(plan.recipe, calibration=calibration)
    return dataclasses.replace(plan, recipe=recipe, verify_data=verify_data)


def options_of(plan: Plan, target: Target) -> dict[str, Any]:
    """Return what besides the network decides an artifact, as JSON has it, for --resume."""
    return {
        "calibration": dataclasses.asdict(plan.recipe.calibration),
        "verify": plan.verify_data,
        "verify_images": plan.verify_images,
        **({"confidence": True} if plan.confidence else {}),  # older bundles do not say
        "ladder": list(target.ladder),
        "gate": dataclasses.asdict(target.gate),
        "made_by": target.exporter,
        "exporter": target.options,
    }
