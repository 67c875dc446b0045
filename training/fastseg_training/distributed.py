"""Several processes that train one network: what they have to agree on.

Started by torchrun, which sets RANK, LOCAL_RANK and WORLD_SIZE. In a single process every
function here returns what it was given.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from fastseg_runtime.arrays.metrics import Array
from torch import Tensor


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the other processes of torchrun, if there are any, for the length of a training."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Return the number of this process, 0 for the one that writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_device(name: str) -> str:
    """Return the device of this process: "auto" and "cuda" become this process's own GPU."""
    if "LOCAL_RANK" in os.environ and name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{os.environ['LOCAL_RANK']}"
    return name


def largest(values: Iterable[float], device: torch.device) -> list[float]:
    """Return the element-wise maximum over all processes."""
    result = list(values)
    if world_size() > 1:
        tensor = torch.tensor(result, dtype=torch.float64, device=device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        result = tensor.tolist()
    return result


def mean(value: Tensor) -> Tensor:
    """Return the mean of a scalar over all processes."""
    value = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(value)
    return value / world_size()


def total(counts: Array, device: torch.device) -> Array:
    """Return the sum of integer arrays over all processes."""
    if world_size() == 1:
        return counts
    tensor = torch.from_numpy(counts).to(device)
    dist.all_reduce(tensor)
    summed: Array = tensor.cpu().numpy()
    return summed


def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors with those of process 0."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)
