"""Who is told how a training goes: TensorBoard, or whatever else is a Callback."""

import sys
from collections.abc import Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from fastseg_training.run_folder import RunFolder


@runtime_checkable
class Callback(Protocol):
    """Hears of a training; a subclass overrides what it wants to hear, the rest does nothing.

    All is called in the thread that trains, of several processes in the first one. What is raised
    ends the training; its state is as old as the last line of a save.
    """

    def on_start(self, run: RunFolder | None) -> None:
        """Hear that a training starts or goes on, in that folder if it has one."""
        return

    def on_log(self, entry: Mapping[str, Any]) -> None:
        """Hear of a line of metrics.jsonl; see scalars()."""
        return

    def on_end(self, run: RunFolder | None) -> None:
        """Hear that it ended, also by Ctrl-C or an error."""
        return


def scalars(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a line of metrics.jsonl: {"iou": {"Sky": 0.9}} as {"iou/Sky": 0.9}."""
    flat: dict[str, float] = {}
    for name, value in entry.items():
        parts = value.items() if isinstance(value, Mapping) else [("", value)]
        flat |= {f"{name}/{part}" if part else name: x for part, x in parts if x is not None}
    return flat


class TensorBoard(Callback):
    """Writes event files for `tensorboard --logdir runs`: pip install tensorboard."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _writer(self) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter

            return SummaryWriter(str(self.folder))
        except Exception as error:  # of protobuf and others that do not fit it: any kind
            why = str(error).partition("\n")[0]
            print(
                f"no TensorBoard: it is installed and fails with {type(error).__name__}: {why}",
                file=sys.stderr,
            )
            return None

    def on_log(self, entry: Mapping[str, Any]) -> None:
        """Write a point of each curve; nothing where TensorBoard is broken, which is said once."""
        if self._writer is None:
            return
        for name, value in scalars(entry).items():
            if name != "step":
                self._writer.add_scalar(name, value, entry["step"])
        self._writer.flush()


def own_callbacks(run: RunFolder | None) -> list[Callback]:
    """Return TensorBoard for a run folder, where it is installed."""
    return [TensorBoard(run.path)] if run is not None and find_spec("tensorboard") else []
