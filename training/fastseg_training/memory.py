"""How the C library of Linux hands out memory to tensors."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


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
