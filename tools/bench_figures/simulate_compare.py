"""How often `remote_bench compare` calls equal sides different, and slower ones: simulated.

    python tools/bench_figures/simulate_compare.py tests/remote_bench/recorded_blocks.csv

Sides are drawn from neighbouring runs of the recording, either its noise as it is (a busy machine)
or a noise of a quiet board: a share by which blocks differ, and one by which runs do. 400 pairs
each. A side that is 10 % slower and is not called different counts as missed.
"""

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from remote_bench.analysis.comparison import RUN_SPREAD, log_ratio
from remote_bench.analysis.stats import Floats

PAIRS, TURNS, BLOCKS, SLOWER = 400, 6, 3, 1 / 1.1
LEVEL = 0.96  # of the frame rate's interval
Draw = Callable[[np.random.Generator, int], Floats]  # neighbouring runs, (runs, blocks)


def main(path: str) -> None:
    """Print a table of each design and noise."""
    recorded = read_runs(path)
    logs = np.log(recorded)
    within, between = spreads(logs)
    print(
        f"recorded: {len(logs)} runs; blocks differ by {within:.1%}, runs beyond by {between:.1%}"
    )
    noises: dict[str, Draw] = {"recorded": lambda rng, count: neighbours(recorded, rng, count)}
    for block, run in ((0.005, 0.005), (0.01, 0.01), (0.02, 0.01), (0.02, 0.02), (0.03, 0.02)):
        noises[f"blocks {block:.1%}, runs {run:.1%}"] = made(block, run)
    print("| noise | design | equal, called different | 10 % slower, found |")
    print("|---|---|---|---|")
    for name, draw in noises.items():
        for design in (f"{TURNS} runs a side in turns", "4 runs a side", "1 run a side"):
            equal, slower = (called_different(draw, design, s) for s in (1.0, SLOWER))
            print(f"| {name} | {design} | {equal:.1%} | {slower:.1%} |")


def read_runs(path: str) -> Floats:
    """Return the frame rates of a recording, (runs, blocks)."""
    runs: dict[str, list[float]] = {}
    for row in csv.DictReader(Path(path).read_text().splitlines()):
        runs.setdefault(row["run"], []).append(float(row["fps"]))
    return np.array(list(runs.values()))


def spreads(logs: Floats) -> tuple[float, float]:
    """Return the standard deviations of blocks within runs, and of runs beyond their blocks."""
    within = float(logs.var(axis=1, ddof=1).mean())
    between = float(logs.mean(axis=1).var(ddof=1)) - within / logs.shape[1]
    return within**0.5, max(between, 0.0) ** 0.5


def neighbours(runs: Floats, rng: np.random.Generator, count: int) -> Floats:
    """Return some runs that followed one another."""
    start = int(rng.integers(0, len(runs) - count + 1))
    return runs[start : start + count]


def made(block: float, run: float) -> Draw:
    """Return what draws runs of a made noise, at 30 frames a second."""

    def draw(rng: np.random.Generator, count: int) -> Floats:
        logs = rng.normal(0, run, (count, 1)) + rng.normal(0, block, (count, BLOCKS))
        rates: Floats = 30 * np.exp(logs)
        return rates

    return draw


def called_different(draw: Draw, design: str, factor: float) -> float:
    """Return the share of pairs that are called different; B's frame rate is times the factor."""
    rng, called = np.random.default_rng(1), 0
    single, in_turns = design.startswith("1 "), design.endswith("turns")
    for _ in range(PAIRS):
        if single:
            a, b = draw(rng, 2)
        else:
            means = draw(rng, 2 * int(design.split()[0])).mean(axis=1).reshape(-1, 2)
            order = np.array([[0, 1], [1, 0]])[np.arange(len(means)) % 2]
            a, b = np.take_along_axis(means, order, axis=1).T
        _, interval = log_ratio(a, b * factor, LEVEL, in_turns, single)
        called += interval is not None and (interval[0] > 0 or interval[1] < 0)
    return called / PAIRS


if __name__ == "__main__":
    print(f"# runs are taken to differ by {RUN_SPREAD:.1%} where a side has one")
    main(*sys.argv[1:])
