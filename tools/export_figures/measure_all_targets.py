"""Measure how long all targets take to export and verify, and how much memory.

    python tools/export_figures/measure_all_targets.py runs/small/model.safetensors camvid:PATH

Prints a row per target. The peak of all is that of this process, which runs PyTorch and the
artifacts, plus that of the largest converter: both may be there at once. Where others use the
machine too, CPU seconds say what it took: divided by the cores, less than it could have taken.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

from scoring import export


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("network", help="a checkpoint")
    parser.add_argument("data", help="a data set to calibrate and verify on")
    parser.add_argument("--targets", nargs="+", default=["all"])
    parser.add_argument("--images", type=int, default=20, help="to verify on")
    given = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "all.fastseg"
        outcome = export(given.network, given.targets, bundle, given.data, given.images)
    seconds = time.monotonic() - start
    used = os.times()
    cpu_seconds = used.user + used.system + used.children_user + used.children_system
    made = [(artifact, artifact.extra["export"]) for artifact in outcome.manifest.artifacts]
    print("| target | made | seconds | of these converting | converter's peak, MB |")
    print("|---|---|--:|--:|--:|")
    for artifact, took in made:
        print(
            f"| {artifact.target} | {artifact.precision} | {took['seconds']} "
            f"| {took['conversion_seconds']} | {took['peak_memory_mb']} |"
        )
    own_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    largest_mb = max(took["peak_memory_mb"] for _, took in made)
    count = len(made) + len(outcome.failed)
    print(f"\n{count} targets, {given.images} images: {seconds:.0f} s, ", end="")
    print(f"{cpu_seconds:.0f} s of CPU, ", end="")
    print(f"at most {own_mb:.0f} + {largest_mb} MB; failed: {outcome.failed or 'none'}")


if __name__ == "__main__":
    main()
