"""Brings to a board all that a run needs; what the board has already is not sent again."""

import io
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from fastseg_runtime.arrays.strict_tables import TableError, from_table
from fastseg_runtime.bundle.manifest import Artifact, Manifest
from fastseg_runtime.bundle.usage import describe_usage
from fastseg_targets.device import recognise

from remote_bench.analysis.result import Probe
from remote_bench.host.errors import DeviceFailure
from remote_bench.link import payload
from remote_bench.link.connection import Connection
from remote_bench.run.benchmark import BUNDLE, Benchmark, Measurement, Prepared
from remote_bench.run.bundles import candidates, choose_bundle, read_manifest
from remote_bench.run.frame_files import frames_zip
from remote_bench.run.material import evidence_bundle, frames_for
from remote_bench.run.sweep import untrained_bundle
from remote_bench.run.wheels import (
    builds_engines,
    engine_modules,
    fetch_wheels,
    missing_packages,
    packages_for_each,
)

DEPLOYED = (f"{payload.RUNTIME_PATH}/fastseg_runtime", BUNDLE)
_FRAMES = "frames"
_PROBE_S = 60.0  # nvpmodel and tegrastats are slow on a busy board
_ENGINE_LEAST_BYTES = 32 << 20  # kernels and timings, whatever the weights


def engine_bytes(artifacts: Iterable[Artifact]) -> int:
    """Return what the engine of the largest artifact may need, with what is kept to build it."""
    sizes = [sum(entry.bytes for entry in artifact.files) for artifact in artifacts]
    return _ENGINE_LEAST_BYTES + 2 * max(sizes, default=0)


class Preparation:
    """Looks at one board and uploads to it."""

    def __init__(self, board: Connection, measurement: Measurement) -> None:
        self._board, self._benchmark = board, measurement.benchmark
        self._watch, self._cancel = measurement.watch, measurement.cancel

    def prepare(self) -> Prepared:
        """Lock the board; send code, bundle, wheels and frames.

        Raises:
            BenchError: the board lacks something, or the connection broke.
        """
        self._board.request("lock")
        if folder := self._benchmark.deploy:
            self._board.request("may_deploy", folder=folder, names=DEPLOYED)
        return self.bring(self.probe(), self._benchmark)

    def bring(self, probe: dict[str, Any], wanted: Benchmark, name: str = BUNDLE) -> Prepared:
        """Send what one benchmark needs to a locked board; its bundle gets that name there."""
        device = recognise(probe, wanted.device)
        if wanted.untrained:
            bundle = untrained_bundle(wanted.untrained, wanted.target, device, self._watch)
        elif wanted.every_target and wanted.bundle is None:
            bundle = evidence_bundle(device, builds_engines(probe), self._watch)
        else:
            bundle = choose_bundle(
                wanted.bundle, wanted.target, device, self._watch, wanted.own_file
            )
        manifest = read_manifest(bundle, wanted.target)
        if not (wanted.bundle or wanted.untrained):
            self._watch.note(f"weights: {describe_usage(manifest.model.usage)}")
        artifacts = candidates(manifest, wanted.target)
        if wanted.every_target:
            packages = packages_for_each(probe, artifacts)
        else:
            packages = missing_packages(probe, artifacts, named=wanted.target is not None)
        paths = [payload.RUNTIME_PATH, *self._bring_wheels(probe, packages)]
        sha256 = self._upload_file(bundle)
        self._board.request("place", sha256=sha256, name=name)
        if builds_engines(probe):
            self._board.request("room", bytes=engine_bytes(artifacts))
        source = frames_for(wanted, manifest)
        of_frames = self._send_frames(source, manifest) if source else None
        frames = _FRAMES if source else None
        return Prepared(
            bundle, sha256, manifest, device, probe, tuple(paths), frames, name, of_frames
        )

    def probe(self) -> dict[str, Any]:
        """Send the code, have the agent look at the board, read-only; return what it found.

        Raises:
            DeviceFailure: it gave no answer.
        """
        sha256 = self._upload(io.BytesIO(payload.code_zip()))
        self._board.request("unpack", sha256=sha256, name=".")
        self._watch.phase("probe")
        self._board.request("agent", mode="probe", request={"engines": engine_modules()})
        data: dict[str, Any] = {}
        name = self._board.host.name
        for event in self._board.agent_events(silent_s=_PROBE_S):
            self._cancel.check()
            if event is not None and event["event"] == "probe":
                data = event.get("data") or {}
            if event is not None and event["event"] == "ended" and not data:
                said = f"{name}: the probe failed: {event['stderr']}"
                raise DeviceFailure(f"{said}; see that its python3 runs, and try again")
        try:
            from_table(Probe, data, "probe", ignore_unknown=True)
        except TableError as error:
            raise DeviceFailure(f"{name}: the probe makes no sense: {error}; try again") from error
        return data

    def _bring_wheels(self, probe: dict[str, Any], packages: list[str]) -> list[str]:
        if not packages:
            return []
        self._watch.phase("wheels")
        self._watch.note(f"the board has no {' and no '.join(packages)}: bringing it along")
        hashes = [self._upload_file(wheel) for wheel in fetch_wheels(probe, packages)]
        return [self._board.request("site", wheels=hashes)["path"]]

    def _send_frames(self, source: Path, manifest: Manifest) -> str:
        """Send frames and return their archive's SHA-256."""
        self._watch.phase("frames")
        with tempfile.TemporaryFile() as archive:  # without a name: it cannot be left behind
            count, labelled = frames_zip(source, archive, manifest)
            self._watch.note(f"frames: {count}, of which {labelled} have labels")
            sha256 = self._upload(archive)
        self._board.request("unpack", sha256=sha256, name=_FRAMES)
        return sha256

    def _upload_file(self, file: Path) -> str:
        with file.open("rb") as content:
            return self._upload(content)

    def _upload(self, file: BinaryIO) -> str:
        self._watch.phase("upload")

        def progress(done: int, total: int) -> None:
            self._cancel.check()
            self._watch.progress(done, total)

        return self._board.upload(file, progress)
