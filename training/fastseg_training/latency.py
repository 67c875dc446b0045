"""The deploy graph's latency in PyTorch, noted beside mIoU so that neither is had for free."""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn

from fastseg import DeployGraph
from fastseg.normalization import Normalization
from fastseg.outputs import Reading

RUNS = 10


def measure_latency_ms(
    model: nn.Module,
    width: int,
    height: int,
    mean: float,
    std: float,
    normalization: Normalization | None = None,
    reading: Reading | None = None,
) -> float:
    """Return the median time from camera bytes to class ids, batch 1, on the model's device."""
    device = next(model.parameters()).device
    graph = DeployGraph(
        model, width, height, mean, std, normalization=normalization, reading=reading
    ).to(device)
    image_1HW3 = torch.zeros(1, height, width, 3, dtype=torch.uint8, device=device)
    times_ms = []
    with torch.inference_mode():
        for _ in range(RUNS + 1):
            started = time.perf_counter()
            graph(image_1HW3).cpu()  # the copy waits for the device
            times_ms.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times_ms[1:])
