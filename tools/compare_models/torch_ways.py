"""Torch's own ways to run a network: eager, compiled, CUDA graph; in fp32, bf16 and fp16.

Written for a GPU and not tried on one yet: none was at hand. On a CPU, eager runs in the tests.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from compare_models.candidate import Candidate
from compare_models.timing import Call, Floats, time_rounds

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def time_on(
    candidates: Sequence[Candidate],
    device: str,
    rounds: int,
    ways: Sequence[str] = ("eager", "compiled", "CUDA graph"),
) -> dict[str, Floats]:
    """Time torch modules on a device, camera bytes to class ids, all resident there.

    Args:
        candidates: ONNX files among them are left out.
        device: "cuda" or "cpu"; CUDA graphs and fp16 are for the former alone.
        rounds: how often each is timed.
        ways: which of "eager", "compiled" and "CUDA graph".

    Returns:
        Milliseconds of every round, by "NAME way precision".
    """
    on_gpu = device.startswith("cuda")
    calls: dict[str, Call] = {}
    for candidate in (c for c in candidates if c.graph is not None):
        for precision, dtype in DTYPES.items():
            for way in ways:
                if on_gpu or (way != "CUDA graph" and precision != "fp16"):
                    label = f"{candidate.name} {way} {precision}"
                    calls[label] = _call(candidate, torch.device(device), dtype, way)
    return time_rounds(calls, rounds)


def _call(candidate: Candidate, device: torch.device, dtype: torch.dtype, way: str) -> Call:
    assert candidate.graph is not None
    graph = copy.deepcopy(candidate.graph).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    image_NHW3 = torch.from_numpy(candidate.feed["image"]).to(device)
    run = torch.compile(graph) if way == "compiled" else graph

    def infer() -> Tensor:
        with (
            torch.inference_mode(),
            torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
        ):
            ids_NHW: Tensor = run(image_NHW3)
            return ids_NHW

    infer()
    call = _replay(infer) if way == "CUDA graph" else infer
    return _synchronised(call) if device.type == "cuda" else call


def _replay(infer: Call) -> Call:
    """Record a CUDA graph after a warm-up on a stream of its own, as torch's manual has it."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        infer()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        infer()
    return graph.replay


def _synchronised(call: Call) -> Call:
    def run() -> None:
        call()
        torch.cuda.synchronize()

    return run
