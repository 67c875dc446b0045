"""All artifacts of a bundle side by side, measured here and now."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import Artifact, Manifest
from fastseg_runtime.bundle.reader import BundleError, open_bundle
from fastseg_runtime.engines.engine import find_precision
from fastseg_runtime.engines.opening import NoBackendError, SelfTestError
from fastseg_runtime.engines.selection import made_for

from fastseg import Network
from fastseg_exporters.convert.progress import Progressing, silent
from fastseg_exporters.convert.source import unseen_split, why_unusable
from fastseg_exporters.gate.reference import VERIFY_IMAGES, VerificationSet, pytorch_runner
from fastseg_exporters.gate.verify import Verification, verify
from fastseg_exporters.gate.workshop import proving_backend

# A median over enough frames to be called one (fastseg_runtime.arrays.stats), soon done for each
# artifact; the first frames of an engine still allocate.
TIMED_FRAMES, WARM_UP_FRAMES = 50, 5


@dataclass(frozen=True)
class Row:
    """An artifact as it does here.

    Attributes:
        artifact: its record in the bundle.
        found: scores; None where nothing here runs it.
        latency_ms: median of infer() on frames of the input's size, by the engine it was made for.
        not_here: why there is no score, or no time; "" where there are both.
    """

    artifact: Artifact
    found: Verification | None = None
    latency_ms: float | None = None
    not_here: str = ""

    def to_table(self) -> dict[str, Any]:
        """Return it as --json has it."""
        keys = ("miou", "miou_drop", "worst_class", "worst_class_drop", "agreement", "runner")
        scores = dataclasses.asdict(self.found) if self.found else {}
        return {
            "target": self.artifact.target,
            "precision": self.artifact.precision,
            "bytes": sum(file.bytes for file in self.artifact.files),
            **{key: scores.get(key) for key in keys},
            "latency_ms": self.latency_ms,
            "not_here": self.not_here,
        }


@dataclass(frozen=True)
class Comparison:
    """All rows, and what they were measured against."""

    bundle: Path
    reference: str
    data: str
    images: int
    rows: tuple[Row, ...]

    def to_table(self) -> dict[str, Any]:
        """Return it as --json has it."""
        rows = [row.to_table() for row in self.rows]
        facts = {"reference": self.reference, "data": self.data, "images": self.images}
        return {"bundle": str(self.bundle), **facts, "artifacts": rows}


def compare_bundle(
    path: Path,
    network: Network | None = None,
    data: str | None = None,
    count: int = VERIFY_IMAGES,
    tell: Callable[[str], None] = lambda line: None,
    progress: Progressing = silent,
) -> Comparison:
    """Run every artifact that this machine can run on the same images, and time it.

    Args:
        path: the bundle.
        network: what PyTorch's class maps come from; None: the first float artifact stands for it.
        data: labelled images, their val split; None: what the bundle was verified on if it is
            here, else generated scenes.
        count: how many images.
        tell: told what happens, one line at a time.
        progress: told how far it is.

    Raises:
        ValueError: the network or the data have other classes than the bundle.
        NoBackendError: no artifact runs here.
        BundleError, DataError: from opening the bundle and the data.
    """
    with open_bundle(path) as bundle:
        manifest = bundle.manifest
    if network is not None and network.sha256 != manifest.model.checkpoint_sha256:
        raise ValueError(f"{path} was made of another network than {network.name}")
    if network is not None:  # its size is an export's choice
        spec = manifest.input
        info = dataclasses.replace(network.info, width=spec.width, height=spec.height)
        network = dataclasses.replace(network, info=info)
    data = data or _data_of(manifest, tell)
    split = unseen_split(manifest.model.trained_on, data)
    with _reference(path, manifest, network) as (infer, reference):
        scenes = VerificationSet(data, count, infer, manifest.classes, split)
        if scenes.note:
            tell(scenes.note)
        scenes.references(progress)
    rows = tuple(_row(path, artifact, scenes, progress) for artifact in manifest.artifacts)
    return Comparison(path, reference, scenes.name, len(scenes), rows)


def _data_of(manifest: Manifest, tell: Callable[[str], None]) -> str | None:
    """Return the data that the bundle was verified on, if it is here."""
    for artifact in manifest.artifacts:
        spec = artifact.extra.get("options", {}).get("verify")
        if isinstance(spec, str):
            reason = why_unusable(spec, manifest.model.trained_on, manifest.classes)
            if reason is None:
                return spec
            tell(f"the data that the bundle was verified on cannot be used here: {reason}")
            break
    return None


@contextlib.contextmanager
def _reference(
    path: Path, manifest: Manifest, network: Network | None
) -> Iterator[tuple[Callable[[Array], Array], str]]:
    """Give what the artifacts are held against, and its name."""
    if network is not None:
        runner = pytorch_runner(network, manifest.output.mask_stride)
        by = "PyTorch" if network.onnx_file is None else "ONNX Runtime, your file"
        yield runner.infer_new, f"{by}, {network.name}"
        return
    floats = [a for a in manifest.artifacts if find_precision(a.precision).is_float]
    if not floats:
        raise ValueError(
            f"{path} holds no float artifact to compare with: name the network that it was made "
            f"of, fastseg-export NETWORK --compare {path}"
        )
    finest_first = sorted(floats, key=lambda a: -find_precision(a.precision).bytes_per_weight)
    why = ""
    for artifact in finest_first:
        try:
            session = _open(path, artifact)
            break
        except (NoBackendError, BundleError, SelfTestError) as error:
            why = why or str(error)
    else:
        raise NoBackendError(f"no float artifact of {path} runs on this machine: {why}", ())
    with session:
        yield session.infer, f"{artifact.target} of the bundle"


def _open(path: Path, artifact: Artifact) -> RealtimeSegmentation:
    return RealtimeSegmentation(path, proving_backend(artifact), target=artifact.target)


def _row(path: Path, artifact: Artifact, scenes: VerificationSet, progress: Progressing) -> Row:
    try:
        session = _open(path, artifact)
    except NoBackendError as error:
        reasons = dict.fromkeys(" - ".join(filter(None, (r.reason, r.fix))) for r in error.rejected)
        return Row(artifact, not_here=f"not run here: {'; '.join(reasons) or error}")
    except (BundleError, SelfTestError) as error:  # of this one; the others may run
        return Row(artifact, not_here=f"not run here: {error}")
    with session:
        name = f"{artifact.target}: comparing"
        found = verify(session, scenes, lambda done, total: progress(name, done, total))
        if session.info.backend != made_for(artifact):
            return Row(artifact, found, not_here=f"not timed here: needs {made_for(artifact)}")
        progress(f"{artifact.target}: timing", 0, 0)
        timed = session.benchmark(TIMED_FRAMES, WARM_UP_FRAMES)
        return Row(artifact, found, timed["p50_ms"])
