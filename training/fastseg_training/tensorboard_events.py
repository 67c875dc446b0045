"""The numbers of metrics.jsonl for TensorBoard too, if it is there: pip install tensorboard."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_events(folder: Path, entry: Mapping[str, Any]) -> None:
    """Write one line of metrics.jsonl as scalars; nothing where TensorBoard is missing.

    Args:
        folder: that of the run; show all with tensorboard --logdir runs.
        entry: numbers by name, "step" among them.
    """
    writer = _open_writer(folder)
    if writer is None:
        return
    for name, value in entry.items():
        if name != "step":
            writer.add_scalar(name, value, entry["step"])
    writer.flush()


@functools.cache
def _open_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))
