"""Measure how long all targets take to export and verify, and how much memory.

    python tools/export_figures/measure_all_targets.py runs/small/model.safetensors camvid:PATH

Prints a row per target. The peak of all is that of this process, which runs PyTorch and the
artifacts, plus that of the largest converter: both may be there at once.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

from fastseg_exporters.convert.exporter import Recipe
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.export import Plan, export_bundle
from fastseg_targets.target import select_targets
from rich.console import Console

log = Console(stderr=True, highlight=False)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("network", help="a checkpoint")
    parser.add_argument("data", help="a data set to calibrate and verify on")
    parser.add_argument("--targets", nargs="+", default=["all"])
    parser.add_argument("--images", type=int, default=20, help="to verify on")
    given = parser.parse_args()
    targets = tuple(select_targets(given.targets))
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(
            Recipe(NetworkSource(given.network), Calibration(given.data)),
            targets,
            Path(folder) / "all.fastseg",
            given.data,
            given.images,
        )
        outcome = export_bundle(plan, lambda line: log.print(line, markup=False, soft_wrap=True))
    seconds = time.monotonic() - start
    print("| target | made | seconds | of these converting | converter's peak, MB |")
    print("|---|---|--:|--:|--:|")
    for artifact in outcome.manifest.artifacts:
        took = artifact.extra["export"]
        print(
            f"| {artifact.target} | {artifact.precision} | {took['seconds']} "
            f"| {took['conversion_seconds']} | {took['peak_memory_mb']} |"
        )
    own_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    largest = max(a.extra["export"]["peak_memory_mb"] for a in outcome.manifest.artifacts)
    print(f"\n{len(targets)} targets, {given.images} images: {seconds:.0f} s, ", end="")
    print(f"at most {own_mb:.0f} + {largest} MB; failed: {outcome.failed or 'none'}")


if __name__ == "__main__":
    main()
