"""Memory: a data set decoded once and kept there if it fits, and what tensors leave behind."""

import ctypes
import dataclasses
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from fastseg_runtime.bundle.manifest import InputSpec

from fastseg.data import Sample, Samples
from fastseg.fitting import STRETCH, fit_image, fit_labels
from fastseg.progress import show_progress

CGROUP = Path("/sys/fs/cgroup")  # of control groups, in a container its own one
OWN_GROUPS = Path("/proc/self/cgroup")  # below it, those of this process
# Limit, what is used, and what of that keeps files, see memory.stat; of version 2 and of version 1.
MEMORY_V2 = ("memory.max", "memory.current", "inactive_file")
MEMORY_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
MEMORY_SHARE = 0.5  # of what is free, for a resident data set: the network needs some too
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


@dataclass(frozen=True)
class ResizedDataset:
    """Samples of a data set at one size, pictures and class maps; see fastseg.fitting.

    Attributes:
        dataset: the samples.
        size: (width, height), pixels; None keeps each sample's own.
        fit: how those of another aspect come into it.
    """

    dataset: Samples
    size: tuple[int, int] | None
    fit: str = STRETCH

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        """Decode and resize a sample."""
        sample = self.dataset[index]
        height, width = sample.label_HW.shape
        if self.size is None or self.size == (width, height):
            return sample
        spec = InputSpec(*self.size, resize=self.fit)
        return dataclasses.replace(
            sample,
            image_HW3=fit_image(sample.image_HW3, spec),
            label_HW=fit_labels(sample.label_HW, spec),
        )


def make_resident(samples: Samples, description: str) -> Samples:
    """Decode all samples into memory if they fit, with a bar on stderr; else return them as is."""
    budget = memory_budget_bytes()
    if _bytes_of(samples[0]) * len(samples) > budget:
        return samples
    kept = []
    for index in show_progress(range(len(samples)), description, len(samples)):
        kept.append(samples[index])
        budget -= _bytes_of(kept[-1])
        if budget < 0:  # later ones are larger than the first
            return samples
    return kept


def _bytes_of(sample: Sample) -> int:
    return int(sample.label_HW.size) * 4  # three of colour, one of class


def memory_budget_bytes() -> float:
    """Return how much of the free memory data may take, in each process of this machine."""
    return free_memory_bytes() * MEMORY_SHARE / int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def free_memory_bytes() -> int:
    """Return the physical memory that programs can have.

    Memory that keeps files that were read lately is counted: else a data set that fits would no
    longer do so when it has been read once. A container may have less than its machine.
    """
    return int(min(psutil.virtual_memory().available, *_left_to_groups()))


def _left_to_groups() -> Iterator[float]:
    """Yield what this process's control groups and those around them may still take (Linux)."""
    lines = OWN_GROUPS.read_text().splitlines() if OWN_GROUPS.exists() else []
    for line in ["0::/", *lines]:
        _, controllers, path = line.split(":", 2)
        root, names = CGROUP, MEMORY_V2
        if controllers:
            root, names = CGROUP / "memory", MEMORY_V1
        if controllers in ("", "memory"):
            group = root / path.strip("/")
            for folder in (group, *group.parents):
                yield _left_to_group(folder, *names)


def _left_to_group(folder: Path, limit: str, current: str, files: str) -> float:
    """Return what a control group may still take, see cgroup-v2.rst; infinite without limit."""
    try:
        most, used = (folder / limit).read_text(), int((folder / current).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return int(most) - used + int(stat[files])
    except (OSError, ValueError, KeyError):  # no such group, or its limit is "max"
        return math.inf


def keep_freed_memory() -> None:
    """Keep the memory of freed tensors for the next ones, in this process from now on.

    Else glibc maps each tensor of more than 32 MB anew and gives it back after use, and the kernel
    clears its pages every time: a fifth of the CPU time of a training step. Does nothing where the
    C library is another.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function; Windows has no CDLL(None)
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)  # never
