"""Brings to a locked board all that a run needs."""

import io
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from fastseg_runtime.bundle.manifest import Artifact, Manifest
from fastseg_runtime.bundle.usage import describe_usage
from fastseg_targets.device import recognise

from remote_bench.host.watch import Cancel, Watch
from remote_bench.link import payload
from remote_bench.link.connection import Connection
from remote_bench.run.bundle_facts import candidates, read_manifest
from remote_bench.run.default_bundle import choose_bundle
from remote_bench.run.follow import probe_board
from remote_bench.run.frame_files import frames_zip
from remote_bench.run.plan import BUNDLE, Plan, Prepared
from remote_bench.run.sweep import untrained_bundle
from remote_bench.run.wheels import builds_engines, fetch_wheels, missing_packages

_FRAMES = "frames"
_ENGINE_LEAST_BYTES = 32 << 20  # kernels and timings, whatever the weights


def engine_bytes(artifacts: Iterable[Artifact]) -> int:
    """Return what the engine of the largest artifact may need, with what is kept to build it."""
    sizes = [sum(entry.bytes for entry in artifact.files) for artifact in artifacts]
    return _ENGINE_LEAST_BYTES + 2 * max(sizes, default=0)


class Preparation:
    """Uploads for one session; what the board has already is not sent again."""

    def __init__(self, session: Connection, plan: Plan, watch: Watch, cancel: Cancel) -> None:
        self._session, self._plan = session, plan
        self._watch, self._cancel = watch, cancel

    def prepare(self) -> Prepared:
        """Send code, bundle, wheels and frames.

        Raises:
            BenchError: the board lacks something, or the connection broke.
        """
        plan = self._plan
        self.send_code()
        self._watch.phase("probe")
        probe = probe_board(self._session, self._cancel)
        device = recognise(probe)
        if plan.untrained:
            bundle = untrained_bundle(plan.untrained, plan.target, device, self._watch)
        else:
            bundle = choose_bundle(plan.bundle, plan.target, device, self._watch)
        manifest = read_manifest(bundle, plan.target)
        if not (plan.bundle or plan.untrained):
            self._watch.note(f"weights: {describe_usage(manifest.model.usage)}")
        artifacts = candidates(manifest, plan.target)
        packages = missing_packages(probe, artifacts, named=plan.target is not None)
        paths = [payload.RUNTIME_PATH, *self._bring_wheels(probe, packages)]
        sha256 = self._upload_file(bundle)
        self._session.request("place", sha256=sha256, name=BUNDLE)
        if builds_engines(probe):
            self._session.request("room", bytes=engine_bytes(artifacts))
        frames = self._send_frames(manifest) if plan.frames else None
        return Prepared(bundle, sha256, manifest, device.name, probe, tuple(paths), frames)

    def send_code(self) -> None:
        """Send the agent and the runtime."""
        sha256 = self._upload(io.BytesIO(payload.code_zip()))
        self._session.request("unpack", sha256=sha256, name=".")

    def _bring_wheels(self, probe: dict[str, Any], packages: list[str]) -> list[str]:
        if not packages:
            return []
        self._watch.phase("wheels")
        self._watch.note(f"the board has no {' and no '.join(packages)}: bringing it along")
        hashes = [self._upload_file(wheel) for wheel in fetch_wheels(probe, packages)]
        return [self._session.request("site", wheels=hashes)["path"]]

    def _send_frames(self, manifest: Manifest) -> str:
        assert self._plan.frames is not None
        self._watch.phase("frames")
        with tempfile.TemporaryFile() as archive:  # without a name: it cannot be left behind
            count, labelled = frames_zip(self._plan.frames, archive, manifest)
            self._watch.note(f"frames: {count}, of which {labelled} have labels")
            sha256 = self._upload(archive)
        self._session.request("unpack", sha256=sha256, name=_FRAMES)
        return _FRAMES

    def _upload_file(self, file: Path) -> str:
        with file.open("rb") as content:
            return self._upload(content)

    def _upload(self, file: BinaryIO) -> str:
        self._watch.phase("upload")

        def progress(done: int, total: int) -> None:
            self._cancel.check()
            self._watch.progress(done, total)

        return self._session.upload(file, progress)
