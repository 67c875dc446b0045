"""Record the blocks of many runs of one bundle on one machine, as CSV on stdout.

    python tools/bench_figures/record_blocks.py BUNDLE RUNS > tests/remote_bench/recorded_blocks.csv

What tests/remote_bench/analysis/test_comparison.py and simulate_compare.py resample.
"""

import csv
import sys
from pathlib import Path

from remote_bench.host.host import Cancel
from remote_bench.host.local import LocalHost
from remote_bench.run.benchmark import Benchmark, Measurement
from remote_bench.run.measurement import measure

COLUMNS = ("run", "block", "fps", "p50_ms", "p90_ms", "foreign_cpu")


class Silent:
    """Watches nothing."""

    def phase(self, name: str) -> None:
        """Pass over a phase."""

    def progress(self, done: float, total: float, fps: float | None = None) -> None:
        """Pass over progress."""

    def note(self, text: str) -> None:
        """Pass over a note."""


def main(bundle: str, runs: str) -> None:
    """Measure and print."""
    writer = csv.writer(sys.stdout)
    writer.writerow(COLUMNS)
    wanted = Benchmark(
        bundle=Path(bundle), seconds=3.9, idle_s=0.2, warmup_s=0.3
    )  # short: many runs matter
    for run in range(int(runs)):
        report = measure(Measurement(LocalHost(), wanted, Silent(), Cancel()))
        for number, block in enumerate(report.blocks):
            latency = block.latency_ms
            figures = (block.fps, latency["p50"], latency["p90"], block.foreign_cpu)
            writer.writerow([run, number, *("" if f is None else f"{f:.4f}" for f in figures)])
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
