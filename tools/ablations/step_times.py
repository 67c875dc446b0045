"""CPU seconds of a training step by each measure that makes it faster: docs/training.md has them.

    python tools/ablations/step_times.py --model lite --rounds 3

Each time is taken in a process of its own, since the C library cannot be told to forget, and the
measures take turns. CPU time of one thread, so that others on the machine disturb little.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import torch
from fastseg_training.batches.resident import keep_freed_memory
from fastseg_training.losses import CrossEntropyLoss
from fastseg_training.optimisation import ModelEMA, make_optimizer
from fastseg_training.precision import fast_depthwise
from fastseg_training.supervision import AllHeads, supervise

from fastseg import FastSegNet

# name -> precision, memory format, fast gradients of depthwise convolutions, freed memory is kept
MEASURES = {
    "float32": (None, torch.channels_last, False, False),
    "bf16, channels first": (torch.bfloat16, torch.contiguous_format, False, False),
    "bf16, channels last": (torch.bfloat16, torch.channels_last, False, False),
    "and fast depthwise gradients": (torch.bfloat16, torch.channels_last, True, False),
    "and freed memory kept": (torch.bfloat16, torch.channels_last, True, True),
}
CLASSES, BATCH, STEPS = 11, 8, 2


def seconds_of_a_step(measure: str, variant: str, side: int) -> float:
    """Return the CPU seconds of the fastest of STEPS steps after one untimed."""
    precision, layout, fast, kept = MEASURES[measure]
    torch.set_num_threads(1)
    if kept:
        keep_freed_memory()
    model = FastSegNet(CLASSES, variant).to(memory_format=layout)  # type: ignore[call-overload]  # torch's stub lacks it
    network, optimizer = AllHeads(model), make_optimizer(model, 1e-3, 0.02, 1.0)
    ema, criterion = ModelEMA(model, 0.998), CrossEntropyLoss()
    image_N3HW = torch.randn(BATCH, 3, side, side).contiguous(memory_format=layout)
    label_NHW = torch.randint(0, CLASSES, (BATCH, side, side))
    times_s = []
    with fast_depthwise(model, precision if fast else None, torch.device("cpu")):
        for step in range(1 + STEPS):
            start = time.process_time()
            with torch.autocast("cpu", precision or torch.bfloat16, precision is not None):
                logits = network(image_N3HW)
            optimizer.zero_grad(set_to_none=True)
            supervise(logits, label_NHW, criterion, step, 2, 0.4).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            ema.update(step)
            times_s.append(time.process_time() - start)
    return min(times_s[1:])


def main() -> None:
    """Print the table, or one time for the process that asks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="lite")
    parser.add_argument("--side", type=int, default=352, help="of the square crops, pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=MEASURES, help="take one time")
    given = parser.parse_args()
    if given.only:
        print(seconds_of_a_step(given.only, given.model, given.side))
        return
    times_s: dict[str, list[float]] = {name: [] for name in MEASURES}
    for _ in range(given.rounds):
        for name, taken_s in times_s.items():
            options = [f"--model={given.model}", f"--side={given.side}", f"--only={name}"]
            run = subprocess.run(
                [sys.executable, __file__, *options], capture_output=True, text=True, check=True
            )
            taken_s.append(float(run.stdout))
    print(f"| {given.model} | CPU s a step | images per core and second |\n|---|--:|--:|")
    for name, taken_s in times_s.items():
        print(f"| {name} | {min(taken_s):.2f} | {BATCH / min(taken_s):.1f} |")


if __name__ == "__main__":
    main()
