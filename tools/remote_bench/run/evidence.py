"""Every artifact of a bundle, one after the other: on a board, or here where no agent can run.

What came so far is handed on after each, so that it stays whatever ends the rest.
"""

import dataclasses
import hashlib
import platform
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays.image import resize_nearest
from fastseg_runtime.arrays.metrics import (
    Array,
    confusion_matrix,
    mean_iou,
    occurring_classes,
)
from fastseg_runtime.bundle.manifest import Artifact, Manifest
from fastseg_runtime.bundle.reader import BundleError, open_bundle
from fastseg_runtime.engines.engine import find_engine, find_precision
from fastseg_runtime.engines.opening import NoBackendError
from fastseg_runtime.engines.selection import made_for, this_processor
from fastseg_runtime.engines.selftest import run_selftest
from fastseg_targets.device import device_names, load_device
from fastseg_targets.target import Gate, load_target, target_names

from remote_bench.analysis.evidence import SCHEMA, Evidence, Labelled, Place, TargetRun
from remote_bench.analysis.report import Report, Table, to_table
from remote_bench.analysis.result import Result
from remote_bench.host.errors import BenchError, Unreachable
from remote_bench.host.live import plain
from remote_bench.link import payload
from remote_bench.link.connection import Connection
from remote_bench.run.benchmark import TOOL, Measurement, Prepared
from remote_bench.run.bundles import describe, read_manifest
from remote_bench.run.frame_files import read_frames
from remote_bench.run.material import evidence_bundle, frames_for
from remote_bench.run.measurement import fetch_result, follow, lost_result, report_of
from remote_bench.run.preparation import Preparation
from remote_bench.run.wheels import lacks, missing_packages

LOST = ("connection_lost", "rebooted")  # kinds of errors after which the board is not asked again
Keep = Callable[[Evidence, Report | None], None]
Infer = Callable[[Array], Array]


class Gathering:
    """What has come of one call so far. Any thread may end it; then nothing more is added."""

    def __init__(self, keep: Keep) -> None:
        """Begin with nothing.

        Args:
            keep: called with all that came, and with the newest report, after each step.
        """
        self._keep, self._lock, self._over = keep, threading.Lock(), False
        self.evidence: Evidence | None = None
        self.reports: list[Report] = []
        self.names: list[str] = []  # of the host and its user, which are nobody's business
        self._artifacts: list[Artifact] = []  # in the order of their runs
        self.versions: list[str] = []  # of its software, which may look like addresses

    def on(self, measurement: Measurement) -> None:
        """Run every artifact on a host and note what came of each.

        Raises:
            BenchError: it ended early; what came is noted.
        """
        if measurement.host.name == "localhost" and sys.platform != "linux":
            self._here(measurement)
        else:
            self._on_board(measurement)

    def end(self, why: str) -> Evidence | None:
        """Note why it ended early, "" where it did not; return all that came, None for nothing."""
        with self._lock:
            self._over = True
        if self.evidence is not None:
            left = self._artifacts[len(self.evidence.runs) :]
            runs = (*self.evidence.runs, *(_not_run(one, "not reached", True) for one in left))
            self.evidence = dataclasses.replace(self.evidence, runs=runs, unfinished=why)
            self._keep(self.evidence, None)
        return self.evidence

    def _note(self, evidence: Evidence, report: Report | None = None) -> None:
        with self._lock:
            if self._over:
                raise BenchError("nobody waits for it any more")
            self.evidence = evidence
            self.reports += [report] if report else []
            self._keep(evidence, report)

    def _add(self, run: TargetRun, report: Report | None = None) -> None:
        assert self.evidence is not None
        self._note(dataclasses.replace(self.evidence, runs=(*self.evidence.runs, run)), report)

    def _on_board(self, measurement: Measurement) -> None:
        with measurement.connect() as board:
            prepared = Preparation(board, measurement).prepare()
            frames = Frames.of(measurement, prepared.bundle, prepared.manifest)
            self._artifacts = in_order(prepared.manifest.artifacts)
            self._know(measurement, prepared)
            self._note(_beginning(_board_place(measurement, prepared), prepared, frames))
            for artifact in self._artifacts:
                if why := lacks(prepared.probe, artifact):
                    self._add(_not_run(artifact, why, skipped=True))
                    continue
                self._run_there(board, _of_target(measurement, artifact), prepared, frames)
            measurement.watch.phase("clean up")
            board.finish()

    def _know(self, measurement: Measurement, prepared: Prepared) -> None:
        host, probe = measurement.host, prepared.probe
        hostname = probe["system"].get("hostname")
        self.names = [host.name, host.address, host.user, *host.known_as, str(hostname or "")]
        found = (*probe["packages"].values(), *probe["python"]["modules"].values())
        self.versions = [str(version) for version in found if version]

    def _run_there(
        self, board: Connection, measurement: Measurement, prepared: Prepared, frames: "Frames"
    ) -> None:
        target = str(measurement.benchmark.target)
        artifact = next(one for one in prepared.manifest.artifacts if one.target == target)
        measurement.watch.note(f"{target}, for {find_engine(made_for(artifact)).title}")
        if not missing_packages(prepared.probe, [artifact]):  # it keeps its own numpy, too
            prepared = dataclasses.replace(prepared, runtime_paths=(payload.RUNTIME_PATH,))
        try:
            result = _run_agent(board, measurement, prepared)
        except BenchError as error:
            self._add(_not_run(artifact, str(error)))
            raise
        report = report_of(board, measurement, prepared, result)
        self._add(_target_run(artifact, report, result, frames), report)
        if result.error and result.error.kind in LOST:
            raise Unreachable(f"{board.host.name}: {result.error.message}")

    def _here(self, measurement: Measurement) -> None:
        bundle = measurement.benchmark.bundle
        bundle = bundle or evidence_bundle(load_device("generic-arm64"), False, measurement.watch)
        manifest = read_manifest(bundle, None)
        frames = Frames.of(measurement, bundle, manifest)
        self._note(_beginning_here(bundle, manifest, frames))
        self._artifacts = in_order(manifest.artifacts)
        for artifact in self._artifacts:
            measurement.cancel.check()
            measurement.watch.phase(artifact.target)
            self._add(_run_here(bundle, artifact, frames, measurement))


def in_order(artifacts: Iterable[Artifact]) -> list[Artifact]:
    """Return artifacts in the order of their runs: what an engine is built for minutes for, last.

    Float comes before int8, so that what the time is over for is the less telling half.
    """
    return sorted(
        artifacts,
        key=lambda one: (
            find_engine(made_for(one)).builds,
            not find_precision(one.precision).is_float,
        ),
    )


@dataclass(frozen=True)
class Frames:
    """The frames of the runs, and what the reference makes of the labelled ones, in their order."""

    said: str
    labelled: tuple[tuple[Array, Array], ...] = ()  # image (H, W, 3), class ids (H, W)
    reference: str = "nothing"
    confusions: tuple[Array, ...] = ()  # (K, K) of each labelled frame; (): no reference

    @staticmethod
    def of(measurement: Measurement, bundle: Path, manifest: Manifest) -> "Frames":
        """Read the frames, and run a float artifact on them here: the board's answer is known.

        Raises:
            UsageError: no frame there, or one that cannot be read.
            Interrupted: somebody called it off.
        """
        source = frames_for(measurement.benchmark, manifest)
        if source is None:
            return Frames("the scenes of the bundle's self-test, without labels")
        pairs = list(read_frames(source, manifest))
        labelled = tuple((image, label) for image, label in pairs if label is not None)
        origin = "yours" if measurement.benchmark.frames else "drawn streets"
        said = f"{len(pairs)} frames, {origin}, {len(labelled)} of them labelled"
        measurement.watch.phase("reference")
        for artifact in in_order(manifest.artifacts):
            engine = find_engine(made_for(artifact))
            if not find_precision(artifact.precision).is_float or engine.builds:
                continue
            try:
                session = _open(bundle, artifact)
            except (NoBackendError, BundleError):
                continue
            with session:
                name = f"{artifact.target} by {engine.title} {session.info.version}, where"
                found = _confusions(session.infer, labelled, len(manifest.classes), measurement)
            return Frames(said, labelled, f"{name} the command was given", tuple(found))
        return Frames(said, labelled)

    def beside(self, count: int, miou: float | None, artifact: Artifact) -> Labelled | None:
        """Return what the first `count` labelled frames gave; None where there are none."""
        if not count or miou is None:
            return None
        known = self.confusions[:count]
        reference = _miou(known) if len(known) == count else None
        return Labelled(count, miou, reference, _gate(artifact.target).miou_drop)


def _miou(confusions: Sequence[Array]) -> float | None:
    total_KK = np.sum(confusions, axis=0) if confusions else None
    if total_KK is None or occurring_classes(total_KK) < 2:  # as the worker on a board has it
        return None
    return mean_iou(total_KK)


def _gate(target: str) -> Gate:
    return load_target(target).gate if target in target_names() else Gate()


def _open(bundle: Path, artifact: Artifact) -> RealtimeSegmentation:
    return RealtimeSegmentation(bundle, made_for(artifact), target=artifact.target)


def _confusions(
    infer: Infer,
    labelled: Sequence[tuple[Array, Array]],
    num_classes: int,
    measurement: Measurement,
) -> list[Array]:
    """Return the confusion matrix of each labelled frame, as the worker on a board counts."""
    found = []
    for image_HW3, label_hw in labelled:
        measurement.cancel.check()
        classes_HW = infer(image_HW3)
        label_HW = resize_nearest(label_hw, classes_HW.shape[1], classes_HW.shape[0])
        found.append(confusion_matrix(classes_HW, label_HW, num_classes))
        measurement.watch.progress(len(found), len(labelled))
    return found


def _of_target(measurement: Measurement, artifact: Artifact) -> Measurement:
    benchmark = dataclasses.replace(measurement.benchmark, target=artifact.target)
    return dataclasses.replace(measurement, benchmark=benchmark)


def _run_agent(board: Connection, measurement: Measurement, prepared: Prepared) -> Result:
    measurement.cancel.check()
    try:
        board.request("agent", mode="run", request=prepared.request(measurement.benchmark))
        ended = follow(board, measurement, prepared)
        measurement.watch.phase("fetch")
        return fetch_result(board, measurement, prepared, ended)
    except Unreachable as error:
        return lost_result(board, measurement, prepared, error)


def _target_run(artifact: Artifact, report: Report, result: Result, frames: Frames) -> TargetRun:
    engine, accuracy, test = report.engine or {}, result.accuracy, result.selftest
    builds = [build for build in engine.get("engines") or () if isinstance(build, dict)]
    name, version = engine.get("backend"), engine.get("version")
    return TargetRun(
        artifact.target,
        artifact.precision,
        made_for(artifact),
        engine=str(name) if name else None,
        version=str(version) if version else None,
        agreement=test.agreement if test else None,
        required=test.required if test else None,
        labelled=(frames.beside(accuracy.labelled, accuracy.miou, artifact) if accuracy else None),
        fps=report.fps,
        p50_ms=report.latency_ms.p50 if report.latency_ms else None,
        power_w=report.power.flat_out.mean_w if report.power else None,
        verdict=report.verdict,
        audit=tuple(map(_told_of, builds)),
        problem=plain(report.error.message) if report.error else "",
    )


def _told_of(build: Table) -> Table:
    told: Table = {"flags": build.get("flags"), "layers": build.get("audit")}
    return {**told, **{key: build[key] for key in ("file", "rivals") if key in build}}


def _not_run(artifact: Artifact, why: str, skipped: bool = False) -> TargetRun:
    made = made_for(artifact)
    return TargetRun(artifact.target, artifact.precision, made, problem=plain(why), skipped=skipped)


def _run_here(
    bundle: Path, artifact: Artifact, frames: Frames, measurement: Measurement
) -> TargetRun:
    """Run an artifact in this process, where no agent can: off Linux."""
    try:
        session = _open(bundle, artifact)
    except NoBackendError as error:
        return _not_run(artifact, str(error), skipped=not any(r.failed for r in error.rejected))
    except (BundleError, MemoryError) as error:
        return _not_run(artifact, f"{type(error).__name__}: {error}")
    with session, open_bundle(bundle) as opened:
        classes = len(session.classes)
        test = run_selftest(session.infer, opened.selftests(), artifact, classes)
        found = _confusions(session.infer, frames.labelled, classes, measurement)
        timed = session.benchmark()
    return TargetRun(
        artifact.target,
        artifact.precision,
        made_for(artifact),
        engine=session.info.backend,
        version=session.info.version,
        agreement=test.agreement,
        required=test.required,
        labelled=frames.beside(len(found), _miou(found), artifact),
        fps=timed["fps"],
        p50_ms=timed["p50_ms"],
    )


def _beginning(place: Place, prepared: Prepared, frames: Frames) -> Evidence:
    probe = prepared.probe
    facts = {
        "system": {key: probe["system"].get(key) for key in ("kernel", "distribution")},
        "cpu": {key: probe["cpu"].get(key) for key in ("model", "count")},
        "memory": probe["memory"],
        "jetson": probe.get("jetson"),
        "python": {key: probe["python"].get(key) for key in ("version", "modules", "libc")},
        "packages": probe["packages"],
        "power_mode": probe["power_mode"],
        "readable": probe["readable"],
    }
    return _evidence(place, facts, prepared.manifest, prepared.bundle_sha256, frames)


def _evidence(
    place: Place, facts: Table, manifest: Manifest, sha256: str, frames: Frames
) -> Evidence:
    return Evidence(
        SCHEMA,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        tool=TOOL,
        place=place,
        facts=facts,
        bundle=to_table(describe(manifest, sha256, None)),
        frames=frames.said,
        reference=frames.reference,
    )


def _board_place(measurement: Measurement, prepared: Prepared) -> Place:
    device = prepared.device
    machine = str(prepared.probe["system"]["machine"])
    over_ssh = measurement.host.name != "localhost"
    rehearsal = why_rehearsal(measurement.benchmark.root, prepared.probe)
    name = device.name if device.name in device_names() else device.family  # not the user's
    return Place(name, device.description, machine, over_ssh, rehearsal)


def why_rehearsal(root: str, probe: Table) -> str:
    """Return why a board is none; "" for a real one."""
    if root != "/":
        return "a made file tree stood for the board"
    features = probe["cpu"].get("features") or ()
    if probe["system"]["machine"] == "aarch64" and "asimd" not in features:
        return "the board was emulated: its CPU shows no feature that each arm64 has"
    return ""


def _beginning_here(bundle: Path, manifest: Manifest, frames: Frames) -> Evidence:
    machine, arm = platform.machine(), this_processor().arm
    system = f"{platform.system()} {platform.mac_ver()[0] or platform.release()}"
    device = load_device("generic-arm64" if arm else "generic-x86").name
    place = Place(device, system, machine, over_ssh=False)
    facts = {"system": system, "cpu": platform.processor(), "python": platform.python_version()}
    return _evidence(place, facts, manifest, _sha256(bundle), frames)


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
