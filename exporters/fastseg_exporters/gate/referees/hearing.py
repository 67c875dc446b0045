"""Referees are heard on the artifacts of a bundle; what they say joins its manifest.

What a referee runs in its simulator is compared with PyTorch here, not by its script.
"""

import dataclasses
import itertools
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fastseg_runtime.arrays.metrics import Array, agreement, confusion_matrix, labelled_miou
from fastseg_runtime.bundle.manifest import Artifact, Manifest
from fastseg_runtime.engines.backend import ModelSource
from fastseg_runtime.engines.engine import find_precision
from fastseg_runtime.engines.frame_runner import FrameFit, FrameRunner

from fastseg_exporters.gate.referees.judge import judge
from fastseg_exporters.gate.referees.referee import KEY, MAX_LINE, Referee, Verdict, verdicts_of
from fastseg_exporters.gate.reference import Scene
from fastseg_exporters.gate.workshop import Workshop

MAX_OUTPUT_BYTES = 1 << 28  # of one frame: logits of a large network have a tenth of it


def hear(chosen: Sequence[Referee], workshop: Workshop, targets: Collection[str]) -> None:
    """Let referees judge artifacts of a bundle, and write the bundle with their verdicts.

    Args:
        chosen: installed referees.
        workshop: has the bundle, and scenes to run.
        targets: whose artifacts are judged.
    """
    for artifact in workshop.bundle.manifest.artifacts:
        concerned = [r for r in chosen if artifact.target in targets and r.judges(artifact)]
        verdicts = [_heard(referee, artifact, workshop) for referee in concerned]
        if verdicts:
            by_name = {verdict.referee: verdict for verdict in (*verdicts_of(artifact), *verdicts)}
            tables = [dataclasses.asdict(verdict) for verdict in by_name.values()]
            workshop.bundle.note(artifact.target, {KEY: tables})


def refusal(referee: str, artifact: Artifact) -> str:
    """Return why an artifact may not ship whose own toolchain is a referee; "" if it may.

    Of a frame that it simulated the ids must be PyTorch's as a device's must.
    """
    for verdict in verdicts_of(artifact):
        if verdict.referee != referee:
            continue
        found = verdict.facts.get("verification", {}).get("agreement", 1.0)
        limit = find_precision(artifact.precision).selftest_agreement
        if verdict.outcome != "accepted":
            return f"{referee} {verdict.outcome} it: {verdict.says}"
        if not found >= limit:
            return f"agreement {found:.3f} in the simulator of {referee}, limit {limit:.3f}"
    return ""


def _heard(referee: Referee, artifact: Artifact, workshop: Workshop) -> Verdict:
    what = f"{artifact.target}: hearing {referee.title or referee.name}"
    workshop.progress(what, 0, 0)
    manifest, scenes = workshop.bundle.manifest, []
    with tempfile.TemporaryDirectory(dir=workshop.folder) as name:
        files, work = Path(name) / "files", Path(name) / "work"
        work.mkdir()
        workshop.bundle.unpack(artifact, files)
        if referee.frames:
            scenes = list(itertools.islice(workshop.scenes, referee.frames))
            _write_frames(scenes, manifest, work / "frames")
        verdict = judge(referee, artifact, files, work)
        try:
            found = _compare(scenes, manifest, artifact, work / "outputs")
        except (ValueError, OSError) as error:
            why = f"gave outputs that cannot be: {' '.join(str(error).split())}"
            verdict = dataclasses.replace(verdict, outcome="failed", says=why[:MAX_LINE])
        else:
            if found is not None:
                facts = {**verdict.facts, "verification": found}
                verdict = dataclasses.replace(verdict, facts=facts)
    workshop.tell(f"{artifact.target}: {referee.name} {verdict.outcome} it: {verdict.says}")
    return verdict


def _write_frames(scenes: Sequence[Scene], manifest: Manifest, folder: Path) -> None:
    """Write what the artifact is to be given, fitted to its input as on a device."""
    folder.mkdir()
    for index, scene in enumerate(scenes):
        image_HW3 = scene.image_HW3
        fit = FrameFit(image_HW3.shape[:2], manifest.input, _mask_size(manifest), False)
        np.save(folder / f"{index}.npy", fit.to_input(image_HW3))


def _compare(
    scenes: Sequence[Scene], manifest: Manifest, artifact: Artifact, outputs: Path
) -> dict[str, Any] | None:
    """Return how what was simulated does beside PyTorch; None where nothing was.

    Raises:
        ValueError, OSError: a file holds no class map or logits of the artifact.
    """
    there = [index for index in range(len(scenes)) if (outputs / f"{index}.npy").is_file()]
    if not there:
        return None
    backend = _Recorded([outputs / f"{index}.npy" for index in there])
    runner = FrameRunner(backend, artifact, manifest.input, manifest.output, len(manifest.classes))
    count = len(manifest.classes)
    agreements, ours_KK, references_KK = [], *np.zeros((2, count, count))
    labelled = False
    for scene in (scenes[index] for index in there):
        ids_HW = runner.infer_new(scene.image_HW3)
        agreements.append(agreement(ids_HW, scene.reference_HW))
        if scene.label_HW is not None:
            labelled = True
            ours_KK += confusion_matrix(ids_HW, scene.label_HW, count)
            references_KK += confusion_matrix(scene.reference_HW, scene.label_HW, count)
    found = {"images": len(there), "agreement": float(np.mean(agreements))}
    if labelled:
        ours, reference = labelled_miou(ours_KK), labelled_miou(references_KK)
        found |= {"miou": ours, "reference_miou": reference, "miou_drop": reference - ours}
    return found


class _Recorded:
    """What a referee computed, in the place of an engine, so that it is read as on a device."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = iter(files)

    def open(self, source: ModelSource) -> None:
        """Nothing to open."""

    def infer(self, image_1HW3: Array) -> Array:
        """Return the output of the next frame, whatever the image."""
        file = next(self._files)
        if file.stat().st_size > MAX_OUTPUT_BYTES:
            raise ValueError(f"{file.name} has more than {MAX_OUTPUT_BYTES} bytes")
        try:
            with file.open("rb") as content:
                output: Array = np.lib.format.read_array(content, allow_pickle=False)
        except Exception as error:  # MemoryError, tokenize.TokenError, EOFError ...
            raise ValueError(error) from error
        return output

    def close(self) -> None:
        """Nothing to free."""


def _mask_size(manifest: Manifest) -> tuple[int, int]:
    stride = manifest.output.mask_stride
    return manifest.input.height // stride, manifest.input.width // stride
