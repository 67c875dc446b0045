"""Measure what a vendor's toolchain makes of networks, in its simulator or by its source graph.

    python tools/export_figures/measure_npu.py camvid:PATH nano-camvid small-camvid \
        --targets rockchip-int8 snapdragon-int8 --images 100

Converts each network for each target, at the first precision of its ladder, and runs what came of
it on test images beside the author's module: in whatever judges it for the gate. The toolchains
are those of `make referees`. Prints a row for each.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

from fastseg_exporters.convert.exporter import Conversion, Recipe
from fastseg_exporters.convert.progress import silent
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.export import Plan
from fastseg_exporters.gate.record import GrowingBundle
from fastseg_exporters.gate.reference import pytorch_runner
from fastseg_exporters.gate.verify import Verification
from fastseg_exporters.gate.workshop import open_workshop
from fastseg_targets.target import Target, select_targets
from scoring import log, open_scenes, show_scores


def measure(
    source: NetworkSource, targets: list[Target], data: str, images: int
) -> list[tuple[Target, float, Verification]]:
    """Return each target with the megabytes of its file and how it does."""
    network, found = source.open(), []
    recipe, runner = Recipe(source, Calibration(data)), pytorch_runner(network)
    with tempfile.TemporaryDirectory() as name:
        bundle = GrowingBundle(Path(name, "b.fastseg"), network, recipe, runner, replace=True)
        with open_workshop(
            network,
            runner,
            recipe,
            bundle,
            verify_data=data,
            verify_images=1,
            confidence=False,
            timeout_s=Plan.timeout_s,
            tell=log.print,
            progress=silent,
        ) as made:
            workshop = dataclasses.replace(made, scenes=open_scenes(network, data, images))
            for target in targets:
                conversion = Conversion(workshop.recipe, target, target.ladder[0])
                converted = workshop.convert(conversion)
                size_mb = (converted.folder / converted.artifact.entry).stat().st_size / 1e6
                found.append((target, size_mb, workshop.verify(conversion, converted)))
                log.print(f"{source.spec} {target.name}: {show_scores(found[-1][2])}")
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="a data set with a train and a test split")
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--targets", nargs="+", required=True)
    parser.add_argument("--images", type=int, default=100)
    given = parser.parse_args()
    targets = select_targets(given.targets)
    print("| network | target | MB | run by | PyTorch | mIoU | drop (95 %) | agreement |")
    print("|---|---|--:|---|--:|--:|--:|--:|")
    for name in given.networks:
        for target, size_mb, found in measure(
            NetworkSource(name), targets, given.data, given.images
        ):
            cells = (name, f"`{target.name}`", f"{size_mb:.2f}", found.runner, *show_scores(found))
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
