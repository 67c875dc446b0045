"""What variation of pictures costs: CPU seconds of a batch and of a training step, in turns.

    python tools/ablations/augmentation_speed.py
    python tools/ablations/augmentation_speed.py --against ../fastseg-before   # another checkout

Each turn is a process of its own; all take turns, and the ratios are of turns of one round. CPU
time of one thread, so that others on the machine disturb little.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("", "runtime", "targets", "exporters", "training", "tools")
OPTIONS = {
    "vertical flips and rotation": {"flip_vertical": 0.5, "rotation": 180},
    "exposure and haze": {"exposure": 1, "haze": 0.5},
    "CutMix on each crop": {"cutmix": 1},
    "copy-paste on each crop": {"copy_paste": 1},
}
# Runs in either checkout, so it knows only what both have. Pictures and crops as of CamVid.
TURN = """
import sys, time
import numpy as np, torch
from fastseg import FastSegNet
from fastseg.data import Sample
from fastseg_training import SegmentationTrainer
from fastseg_training.batches.augment import Augmentation
from fastseg_training.batches.loader import BatchLoader, BatchPlan

torch.set_num_threads(1)
options, steps, trained = eval(sys.argv[1], {}), int(sys.argv[2]), sys.argv[3] == "step"
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (16, 360, 480, 3), np.uint8)
labels = rng.integers(0, 11, (16, 360, 480), np.uint8)
pictures = [Sample(image, label, "noise") for image, label in zip(images, labels)]
pasted = {"rare": (3,), "with_rare": range(16)} if "copy_paste" in options else {}
plan = BatchPlan(pictures, 8, (288, 288), Augmentation(**options), 0, **pasted)
loader = BatchLoader(plan)
def trainer(steps):
    model, epochs = FastSegNet(11, "nano"), steps / len(loader)
    return SegmentationTrainer(model, loader, None, 11, num_epochs=epochs)
if trained:
    trainer(1).train()  # imports and first allocations
    work = trainer(steps).train
else:
    loader.make(0)
    work = lambda: [loader.make(step) for step in range(steps)]
start = time.process_time()
work()
print((time.process_time() - start) / steps)
"""


def turn(checkout: Path, options: dict[str, float], what: str, steps: int) -> float:
    """Return the CPU seconds of a batch or a step, made by the code of a checkout."""
    path = os.pathsep.join(str(checkout / package) for package in PACKAGES)
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TURN, repr(options), str(steps), what]
    done = subprocess.run(
        command, env=environment, cwd=checkout, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--against", type=Path, help="another checkout, nothing switched on")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    given = parser.parse_args()
    cases = [("nothing", ROOT, {}, "batch"), *((n, ROOT, o, "batch") for n, o in OPTIONS.items())]
    if given.against:
        other = given.against.resolve()
        cases += [(f"of {other.name}", other, {}, "batch"), ("a step", ROOT, {}, "step")]
        cases += [(f"a step of {other.name}", other, {}, "step")]
    times_s: dict[str, list[float]] = {name: [] for name, *_ in cases}
    for _ in range(given.rounds):
        for name, checkout, options, what in cases:
            times_s[name].append(turn(checkout, options, what, given.steps))
    for name, *_, what in cases:
        base = f"a step of {given.against.name}" if what == "step" else "nothing"
        ratios = [a / b for a, b in zip(times_s[name], times_s[base], strict=True)]
        print(
            f"{name:30} {1e3 * statistics.median(times_s[name]):7.1f} ms of CPU, "
            f"{statistics.median(ratios):.2f} of {base!r} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
