"""What a bundle says of a network and its artifacts, and how it grows by them."""

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from fastseg_runtime.arrays.shared_files import write_file
from fastseg_runtime.bundle.manifest import (
    SELFTEST_AGREEMENT,
    SELFTEST_AGREEMENTS,
    Artifact,
    Manifest,
    OutputSpec,
)
from fastseg_runtime.bundle.reader import open_bundle
from fastseg_runtime.bundle.usage import strictest
from fastseg_runtime.bundle.writer import (
    entry,
    files_of,
    pack_selftests,
    read_members,
    write_bundle,
)
from fastseg_runtime.engines.backend_pytorch import manifest_of
from fastseg_runtime.engines.engine import find_precision
from fastseg_runtime.engines.frame_runner import FrameRunner
from fastseg_targets.device import load_device
from fastseg_targets.target import Target

import fastseg
from fastseg import FastSegNet, Network, profile
from fastseg_exporters.convert.child import Converted
from fastseg_exporters.convert.exporter import FOR_GATE, Conversion, Recipe
from fastseg_exporters.gate.reference import selftest_scenes
from fastseg_exporters.gate.verify import Verification

ALIKE = ("model", "input", "output", "classes")  # of all artifacts of a bundle
SAME_NETWORK = 0.995  # of the pixels of its own class maps: another CPU or PyTorch rounds otherwise


def describe_network(network: Network, name: str, output: OutputSpec, created: str) -> Manifest:
    """Return a manifest without artifacts.

    Args:
        network: gives classes, size, normalisation and provenance.
        name: of the bundle.
        output: what its artifacts give.
        created: UTC time, ISO 8601; "" where the same network must give the same bytes.
    """
    info = network.info
    if not isinstance(network.model, FastSegNet):
        output = dataclasses.replace(output, cover="image")
    cost = profile(network.model, (info.width, info.height))
    bare = manifest_of(network)
    model = dataclasses.replace(
        bare.model, parameters=cost.parameters, macs=cost.macs, logits=network.reading_table()
    )
    tool = f"fastseg-edge {fastseg.__version__}"
    return dataclasses.replace(
        bare, name=name, created=created, tool=tool, model=model, output=output
    )


def now() -> str:
    """Return the time for Manifest.created."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def members(target: Target, converted: Converted) -> dict[str, Path]:
    """Return name in the bundle -> file, for what was converted; what is FOR_GATE stays out."""
    own = f"artifacts/{target.name}"
    found = files_of(converted.folder, own)
    return {name: file for name, file in found.items() if not name.startswith(f"{own}/{FOR_GATE}/")}


def record(
    conversion: Conversion, converted: Converted, files: dict[str, Path] | dict[str, bytes]
) -> Artifact:
    """Return the record of an artifact that nobody has verified yet."""
    made, target = converted.artifact, conversion.target.name
    return Artifact(
        target=target,
        format=made.format,
        precision=conversion.precision,
        entry=f"artifacts/{target}/{made.entry}",
        files=tuple(entry(name, content) for name, content in files.items()),
        io=made.io,
        requires=made.requires,
        toolchain=made.toolchain,
        extra=made.extra,
    )


def bounds_ms(manifest: Manifest, target: Target, precision: str) -> dict[str, float]:
    """Return device -> roofline bound: no network of this size is faster there. No prediction."""
    pixels = manifest.input.width * manifest.input.height
    weights = manifest.model.parameters * find_precision(precision).bytes_per_weight
    ids = pixels / manifest.output.mask_stride**2
    moved = int(weights + 3 * pixels + ids)  # weights, bytes in, ids out: each once
    bounds = {
        name: load_device(name).bound_ms(manifest.model.macs, moved, precision)
        for name in target.devices
    }
    return {name: round(bound, 3) for name, bound in bounds.items() if bound is not None}


@dataclass(frozen=True)
class Passed:
    """An artifact that passed its gate, and what was tried before it."""

    conversion: Conversion
    converted: Converted
    verification: Verification
    attempts: tuple[dict[str, Any], ...]


class GrowingBundle:
    """The bundle that artifacts join: the one there is, or a new one.

    Attributes:
        manifest: its record, of what it has so far.
        selftests: images (H, W, 3) and PyTorch's classes (H, W). Artifacts that join are held to
            what those before were: an older bundle has fewer scenes.

    Args:
        path: of the bundle.
        network: whose artifacts join.
        recipe: what is made of it.
        runner: gives PyTorch's class maps.
        replace: begin anew, whatever is there.

    Raises:
        ValueError: the bundle there is has another network, size or output, or had its class maps
            from other code.
    """

    def __init__(
        self, path: Path, network: Network, recipe: Recipe, runner: FrameRunner, replace: bool
    ) -> None:
        self._path = path
        output = OutputSpec(recipe.output, recipe.mask_stride)
        self.manifest = describe_network(network, path.stem, output, created=now())
        self._contents: dict[str, bytes]
        if path.exists() and not replace:
            self._join(runner)
        else:
            self.selftests = selftest_scenes(network, runner)
            self._contents = pack_selftests(self.selftests)
            packed = tuple(entry(name, data) for name, data in self._contents.items())
            self.manifest = dataclasses.replace(self.manifest, selftest=packed)

    def _join(self, runner: FrameRunner) -> None:
        path, fresh = self._path, self.manifest
        old, self._contents = read_members(path)
        # Bundles of before say no usage and fewer terms; one that gains targets says the strictest.
        usage, said = strictest((old.model.usage, fresh.model.usage)), fresh.model.data_licence
        if said.startswith(old.model.data_licence):
            model = dataclasses.replace(old.model, data_licence=said)
            old = dataclasses.replace(old, model=model)
        old, fresh = (
            dataclasses.replace(m, model=dataclasses.replace(m.model, usage=usage))
            for m in (old, fresh)
        )
        if old.output.kind == "classes":  # whose cover nobody asks for, but of a confidence
            covered = dataclasses.replace(old.output, cover=fresh.output.cover)
            old = dataclasses.replace(old, output=covered)
        if any(getattr(old, part) != getattr(fresh, part) for part in ALIKE):
            raise ValueError(
                f"{path} holds another network, size or output, or other classes; "
                "choose another file with -o, or replace it with --force"
            )
        self.manifest = dataclasses.replace(old, tool=fresh.tool)
        with open_bundle(path) as bundle:
            self.selftests = bundle.selftests()
        alike = self._alike(runner)
        if alike < SAME_NETWORK:
            raise ValueError(
                f"{path} was made of the same weights, but the network answers otherwise now: "
                f"{alike:.1%} of the pixels of its self-test alike, so its code or a library was "
                "changed; choose another file with -o, or replace it with --force"
            )

    def _alike(self, runner: FrameRunner) -> float:
        """Return the share of pixels in which the network says what it said to this bundle."""
        shares = [np.mean(runner.infer_new(image) == ids) for image, ids in self.selftests]
        return float(np.mean(shares)) if shares else 1.0

    def has(self, target: Target, options: dict[str, Any]) -> bool:
        """Return whether it holds an artifact that was made in this way."""
        made_by = {"made_by": target.exporter}  # older bundles do not say
        return any(
            a.target == target.name and made_by | a.extra.get("options", {}) == options
            for a in self.manifest.artifacts
        )

    def add(
        self, passed: Passed, options: dict[str, Any], seconds: float, mask_cost: float | None
    ) -> None:
        """Take an artifact in, in place of an older one of its target, and write the bundle.

        Args:
            passed: the artifact.
            options: how it was made, as JSON has it.
            seconds: that making and judging it took.
            mask_cost: by how much a smaller mask alone lowers the mIoU.
        """
        target, converted, verification = (
            passed.conversion.target,
            passed.converted,
            passed.verification,
        )
        files = {name: path.read_bytes() for name, path in members(target, converted).items()}
        artifact = record(passed.conversion, converted, files)
        extra = {
            **artifact.extra,
            "options": options,
            SELFTEST_AGREEMENT: verification.selftest_agreement,
            SELFTEST_AGREEMENTS: list(verification.selftest_agreements),
            "bounds_ms": bounds_ms(self.manifest, target, artifact.precision),
            "float_layers": list(passed.conversion.keep_float),
            "mask_cost": mask_cost,
            "export": {
                "seconds": round(seconds, 1),
                "conversion_seconds": round(converted.seconds, 1),
                "peak_memory_mb": round(converted.peak_memory_mb),
            },
        }
        artifact = dataclasses.replace(
            artifact,
            io={**artifact.io, "num_classes": len(self.manifest.classes)},
            attempts=passed.attempts,
            verification=verification.to_table(),
            extra=extra,
        )
        others = tuple(a for a in self.manifest.artifacts if a.target != target.name)
        manifest = dataclasses.replace(self.manifest, artifacts=(*others, artifact))
        own = f"artifacts/{target.name}/"
        kept = {name: data for name, data in self._contents.items() if not name.startswith(own)}
        write_bundle(self._path, manifest, kept | files)
        self.manifest, self._contents = manifest, kept | files  # not before the disk took it

    def drop(self, target: str) -> None:
        """Leave out an artifact that it holds; without any other there is no bundle any more."""
        left = tuple(a for a in self.manifest.artifacts if a.target != target)
        self.manifest = dataclasses.replace(self.manifest, artifacts=left)
        own = f"artifacts/{target}/"
        self._contents = {n: data for n, data in self._contents.items() if not n.startswith(own)}
        if left:
            write_bundle(self._path, self.manifest, self._contents)
        else:
            self._path.unlink()

    def unpack(self, artifact: Artifact, folder: Path) -> None:
        """Write the files of an artifact that it holds into a folder, which is made."""
        own = f"artifacts/{artifact.target}/"
        for name, data in self._contents.items():
            if name.startswith(own):
                write_file(folder / name.removeprefix(own), data)

    def note(self, target: str, extra: dict[str, Any]) -> None:
        """Add to what is known of an artifact that it holds, and write the bundle."""
        artifacts = tuple(
            dataclasses.replace(a, extra={**a.extra, **extra}) if a.target == target else a
            for a in self.manifest.artifacts
        )
        self.manifest = dataclasses.replace(self.manifest, artifacts=artifacts)
        write_bundle(self._path, self.manifest, self._contents)
