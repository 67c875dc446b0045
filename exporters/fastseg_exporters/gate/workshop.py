"""Where artifacts are made and judged: converted in a child process, then run as devices do.

An artifact is judged in a bundle, through the runtime, on what its device will compute.
"""

import contextlib
import dataclasses
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays.image import resize_bilinear
from fastseg_runtime.arrays.metrics import agreement, confusion_matrix, labelled_miou
from fastseg_runtime.bundle.manifest import Artifact
from fastseg_runtime.bundle.writer import files_of, write_bundle
from fastseg_runtime.engines.engine import engines, find_engine
from fastseg_runtime.engines.frame_runner import FrameRunner
from fastseg_runtime.engines.selection import made_for, probe
from fastseg_targets.target import Target

from fastseg import Network
from fastseg.network import is_factory
from fastseg_exporters.convert.child import Converted, convert
from fastseg_exporters.convert.exporter import (
    Conversion,
    Recipe,
    exporters,
    find_exporter,
    same_files,
)
from fastseg_exporters.convert.progress import Progressing
from fastseg_exporters.convert.source import unseen_split
from fastseg_exporters.gate.confidence import ReferenceConfidence, reference_confidence
from fastseg_exporters.gate.graph_check import check_graph
from fastseg_exporters.gate.record import GrowingBundle, Passed, record
from fastseg_exporters.gate.reference import VerificationSet, smaller_mask_cost
from fastseg_exporters.gate.verify import Verification, verify, worst_of

FEW_SCENES = 8  # to rank layers on: as many artifacts as there are layers are run on each
CHECKED_FRAMES = 3  # to compare the graph with the network on, beside the self-test's hard ones
# To find ranges on while layers are ranked, the same for all of them: what more images would
# change, they would change for each, and a network has sixty layers to convert once.
RANKING_IMAGES = 8
KEPT = "kept"  # a folder
MOST_BYTES_PER_WEIGHT = 16  # of an artifact: jetson-int8 has four graphs, which keep float weights
FREE_SHARE = 0.5  # of the disk, for artifacts at a time


@dataclass(frozen=True)
class Workshop:
    """What the ladder is given: it converts, verifies and compares.

    Attributes:
        recipe: what all artifacts have in common.
        bundle: that they may join.
        scenes: to verify on.
        few_scenes: to compare candidates on, quickly.
        folder: for what is converted, and a trial bundle.
        timeout_s: for each conversion.
        tell: told what happens, one line at a time.
        progress: told how far each step is.
        sure: PyTorch's confidence of `scenes`, where artifacts give one.
        made: what passed, by same_files(): no other target need convert it again.
    """

    recipe: Recipe
    bundle: GrowingBundle
    scenes: VerificationSet
    few_scenes: VerificationSet
    folder: Path
    timeout_s: float
    tell: Callable[[str], None]
    progress: Progressing
    sure: ReferenceConfidence | None = None
    made: dict[str, Converted] = field(default_factory=dict)

    def convert(self, conversion: Conversion) -> Converted:
        """Convert in a child process, unless a target before had it so. Raises ConversionError."""
        if made := self.made.get(same_files(conversion)):
            self.tell(f"{conversion.target.name}: its {conversion.precision} is there already")
            folder = Path(tempfile.mkdtemp(dir=self.folder))
            shutil.copytree(made.folder, folder, dirs_exist_ok=True)
            artifact = made.artifact
            engine = engines().get(find_exporter(conversion.target.exporter).engine)
            # Of one format they may have been made for another; a plug-in need not name any.
            if engine is not None and artifact.requires.get("backend") != engine.name:
                requires = {**artifact.requires, **engine.requirement}
                artifact = dataclasses.replace(artifact, requires=requires)
            return dataclasses.replace(made, artifact=artifact, folder=folder, seconds=0.0)
        self.progress(f"{conversion.target.name}: converting to {conversion.precision}", 0, 0)
        (converted,) = convert([conversion], self.folder, self.timeout_s)
        return converted

    def convert_each(self, conversion: Conversion, layers: tuple[str, ...]) -> Iterator[Converted]:
        """Convert once for each of the layers, which alone stays in float, on a few images.

        As many at a time as the disk takes: whoever is done with one removes its folder.
        """
        what, recipe = f"{conversion.target.name}: converting with one layer in float", self.recipe
        few = dataclasses.replace(
            recipe.calibration, count=min(recipe.calibration.count, RANKING_IMAGES)
        )
        quick = dataclasses.replace(conversion, recipe=dataclasses.replace(recipe, calibration=few))
        asked = [dataclasses.replace(quick, keep_float=(layer,)) for layer in layers]
        artifact_bytes = MOST_BYTES_PER_WEIGHT * max(1, self.bundle.manifest.model.parameters)
        first = 0

        def progress(done: int) -> None:
            self.progress(what, first + done, len(layers))

        while first < len(asked):
            fitting = int(FREE_SHARE * shutil.disk_usage(self.folder).free) // artifact_bytes
            batch = asked[first : first + max(1, fitting)]
            yield from convert(batch, self.folder, self.timeout_s, progress)
            first += len(batch)

    def verify(self, conversion: Conversion, converted: Converted) -> Verification:
        """Return how an artifact does on all scenes, and on the self-test.

        Of several files that its engine may open the worst counts.
        """
        name, made = (
            f"{conversion.target.name}: verifying {conversion.precision}",
            converted.artifact,
        )
        found = []
        for file in (made.entry, *made.alternatives):
            with self._session(conversion, converted, file) as session:
                each = tuple(
                    agreement(session.infer(image), ids) for image, ids in self.bundle.selftests
                )
                one = verify(
                    session, self.scenes, lambda done, of: self.progress(name, done, of), self.sure
                )
            told = file if made.alternatives else ""
            found.append(dataclasses.replace(one, selftest_agreements=each, file=told))
        return worst_of(found, conversion.target.gate, conversion.precision)

    def likeness(self, conversion: Conversion, converted: Converted) -> float:
        """Return the mean IoU on a few scenes with PyTorch's class maps as the truth.

        No label is needed, each class counts alike, and 1.0 is the very same class map.
        """
        with self._session(conversion, converted, converted.artifact.entry) as session:
            count = len(session.classes)
            confusions_KK = [
                confusion_matrix(session.infer(scene.image_HW3), scene.reference_HW, count)
                for scene in self.few_scenes
            ]
        return labelled_miou(np.sum(confusions_KK, axis=0))

    def say_if_one_class(self, target: Target) -> None:
        """Tell that agreement says little where PyTorch sees one class in all of the scenes."""
        references = self.scenes.references(self.progress)
        seen = {int(i) for ids_HW in references for i in np.unique(ids_HW)}
        if len(seen) == 1:
            only = self.bundle.manifest.classes[seen.pop()].name
            self.tell(f"{target.name}: the network sees {only} alone, so agreement says little")

    def mask_cost(self, network: Network) -> float | None:
        """Return by how much a smaller mask alone lowers PyTorch's mIoU; None where nobody knows.

        A full mask costs nothing, and is not measured.
        """
        stride = self.recipe.mask_stride
        cost = smaller_mask_cost(network, self.scenes) if stride > 1 else None
        if cost is not None:
            self.tell(f"masks at 1/{stride} cost {100 * cost:.2f} points of mIoU alone")
        return cost

    def keep(self, passed: Passed) -> Passed:
        """Keep what passed until the end, and return it from where it then is."""
        (self.folder / KEPT).mkdir(mode=0o700, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self.folder / KEPT))
        shutil.copytree(passed.converted.folder, folder, dirs_exist_ok=True)
        kept = dataclasses.replace(passed.converted, folder=folder)
        self.made.setdefault(same_files(passed.conversion), kept)
        return dataclasses.replace(passed, converted=kept)

    def clear(self) -> None:
        """Throw away what was converted so far, but for what is kept."""
        for path in self.folder.iterdir():
            if path.is_dir() and path.name != KEPT:
                shutil.rmtree(path)
            elif path.is_file():
                path.unlink()

    @contextlib.contextmanager
    def _session(
        self, conversion: Conversion, converted: Converted, file: str
    ) -> Iterator[RealtimeSegmentation]:
        own = f"artifacts/{conversion.target.name}"
        path, files = self.folder / "trial.fastseg", files_of(converted.folder, own)
        entry = f"{own}/{file}"
        artifact = dataclasses.replace(record(conversion, converted, files), entry=entry)
        trial = dataclasses.replace(self.bundle.manifest, artifacts=(artifact,), selftest=())
        write_bundle(path, trial, dict(files))
        backend = proving_backend(artifact)
        with RealtimeSegmentation(path, backend, target=artifact.target, selftest=False) as session:
            yield session


@contextlib.contextmanager
def open_workshop(
    network: Network,
    runner: FrameRunner,
    recipe: Recipe,
    bundle: GrowingBundle,
    *,
    verify_data: str | None,
    verify_images: int,
    confidence: bool,
    timeout_s: float,
    tell: Callable[[str], None],
    progress: Progressing,
) -> Iterator[Workshop]:
    """Give a workshop for a network whose graph was checked; see Workshop.

    Args:
        network: what artifacts are made of.
        runner: gives its class maps, which they are held against.
        recipe: gains the norms that must not be folded, and what the network is known by.
        bundle: that artifacts may join.
        verify_data: a labelled data set; None: generated scenes.
        verify_images: how many.
        confidence: artifacts are to give one.
        timeout_s: for each conversion.
        tell: told what happens.
        progress: told how far it is.

    Raises:
        ValueError: the graph to convert gives another answer than the network, or the data have
            other classes.
    """
    info, split = network.info, unseen_split(network.info.trained_on, verify_data)
    scenes, few = (
        VerificationSet(verify_data, count, runner.infer_new, info.classes, split)
        for count in (verify_images, FEW_SCENES)
    )
    if scenes.note:
        tell(scenes.note)
    progress("comparing the graph with the network", 0, 0)
    images = [image_HW3 for image_HW3, _ in bundle.selftests] + scenes.first_images(CHECKED_FRAMES)
    sized = (resize_bilinear(image_HW3, info.width, info.height) for image_HW3 in images)
    keep_norms = check_graph(network, [np.ascontiguousarray(x_HW3)[None] for x_HW3 in sized], tell)
    recipe = dataclasses.replace(
        recipe,
        keep_norms=keep_norms,
        network_sha256=network.sha256,
        sample=network.sample() if is_factory(recipe.source.spec) else (),
    )
    sure = None
    if confidence:
        sure = reference_confidence(network, scenes, keep_norms, progress)
        recipe = dataclasses.replace(recipe, temperature=sure.temperature)
        told = f"fitted on {sure.fitted_on} pictures" if sure.fitted_on else "no label to fit it to"
        tell(f"temperature of the confidence: {sure.temperature:.2f}, {told}")
    with tempfile.TemporaryDirectory(prefix="fastseg-") as name:
        folder = Path(name)
        yield Workshop(recipe, bundle, scenes, few, folder, timeout_s, tell, progress, sure)


def proving_backend(artifact: Artifact) -> str:
    """Return the backend that judges an artifact here: its own engine, or one that stands in."""
    name = made_for(artifact)
    if name in engines() and probe(name).usable:
        return name  # and no other, which may open what this one refuses
    made_by = (exporter for exporter in exporters().values() if exporter.engine == name)
    stand_in = next((exporter.stand_in for exporter in made_by if exporter.stand_in), None)
    if stand_in is None or find_engine(name).platform == sys.platform:
        return "auto"
    return stand_in.name
