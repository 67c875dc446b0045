"""Judges artifacts as a device would run them: in a bundle, through the runtime."""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays.metrics import Array, agreement, confusion_matrix, mean_iou
from fastseg_runtime.bundle.manifest import Artifact, Manifest
from fastseg_runtime.bundle.writer import write_bundle
from fastseg_runtime.engines.engine import engines
from fastseg_runtime.engines.selection import made_for

from fastseg_exporters.convert.exporter import exporters
from fastseg_exporters.convert.job import Converted, Job
from fastseg_exporters.convert.progress import Progressing
from fastseg_exporters.gate.artifact_record import members, record
from fastseg_exporters.gate.reference import VerificationSet
from fastseg_exporters.gate.verify import Verification, verify


@dataclass(frozen=True)
class Prover:
    """Runs what was just converted.

    Attributes:
        manifest: of the bundle that the artifact may join.
        scenes: to verify on.
        few_scenes: to compare candidates on, quickly.
        selftests: the bundle's self-test: images (H, W, 3) and PyTorch's classes (H, W).
        folder: for a trial bundle.
        progress: told how many images are done.
    """

    manifest: Manifest
    scenes: VerificationSet
    few_scenes: VerificationSet
    selftests: list[tuple[Array, Array]]
    folder: Path
    progress: Progressing

    def verify(self, job: Job, converted: Converted) -> Verification:
        """Return how an artifact does on all scenes, and on the self-test."""
        name = f"{job.target.name}: verifying {job.precision}"
        with self._session(job, converted) as session:
            each = tuple(agreement(session.infer(image), ids) for image, ids in self.selftests)
            found = verify(session, self.scenes, lambda done, of: self.progress(name, done, of))
            return dataclasses.replace(
                found, selftest_agreement=min(each, default=None), selftest_agreements=each
            )

    def likeness(self, job: Job, converted: Converted) -> float:
        """Return the mean IoU on a few scenes with PyTorch's class maps as the truth.

        No label is needed, each class counts alike, and 1.0 is the very same class map.
        """
        with self._session(job, converted) as session:
            count = len(session.classes)
            confusions_KK = [
                confusion_matrix(session.infer(scene.image_HW3), scene.reference_HW, count)
                for scene in self.few_scenes
            ]
        return mean_iou(np.sum(confusions_KK, axis=0))

    @contextlib.contextmanager
    def _session(self, job: Job, converted: Converted) -> Iterator[RealtimeSegmentation]:
        path, files = self.folder / "trial.fastseg", members(job.target, converted)
        artifact = record(job.target, job.precision, converted, files)
        if converted.artifact.proof:
            entry = f"artifacts/{job.target.name}/{converted.artifact.proof}"
            artifact = dataclasses.replace(artifact, entry=entry)
        trial = dataclasses.replace(self.manifest, artifacts=(artifact,), selftest=())
        write_bundle(path, trial, dict(files))
        backend = proving_backend(artifact)
        with RealtimeSegmentation(path, backend, target=artifact.target, selftest=False) as session:
            yield session


def proving_backend(artifact: Artifact) -> str:
    """Return the backend that judges an artifact here: Core ML itself runs on macOS alone."""
    engine = engines().get(made_for(artifact))
    if engine is None or engine.platform in (None, sys.platform):
        return "auto"
    made_by = (exporter for exporter in exporters().values() if exporter.engine == engine.name)
    return next((exporter.stand_in.name for exporter in made_by if exporter.stand_in), "auto")
