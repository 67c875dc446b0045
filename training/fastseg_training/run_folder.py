"""The folder of one training: runs/NAME with its weights, numbers and pictures."""

import dataclasses
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fastseg_runtime.arrays.shared_files import locked, whole_file, write_file
from fastseg_runtime.bundle.file_kind import TORCH, file_kind
from torch import nn

from fastseg import CheckpointInfo, save_checkpoint


class RunError(RuntimeError):
    """A run folder cannot be used or written; the message says what to do."""


class TrainingStoppedError(RuntimeError):
    """Ctrl-C or another signal; what was learnt is saved if there is a run folder.

    Attributes:
        exit_code: that of the signal, for a command.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


LOCK = ".lock"  # in the folder
_HELD: set[tuple[int, int, Path]] = set()  # by process, as a child begins as a copy, and thread
SHA256 = "_sha256"  # in the header: of the network that --init or --teacher named


@dataclass(frozen=True)
class RunFolder:
    """Paths and files of a run. Every file is written whole or not at all.

    Attributes:
        path: the folder.
        info: what goes into the header of the checkpoint.
    """

    path: Path
    info: CheckpointInfo

    @property
    def model_path(self) -> Path:
        """Averaged weights, for everything that runs the network."""
        return self.path / "model.safetensors"

    @property
    def best_path(self) -> Path:
        """Averaged weights of the evaluation that scored best on the validation split."""
        return self.path / "best.safetensors"

    def checkpoint_path(self, epoch: float) -> Path:
        """Averaged weights after so many epochs."""
        return self.path / "checkpoints" / f"epoch-{epoch:g}.safetensors"

    @property
    def resume_path(self) -> Path:
        """Weights, averages, optimizer and counters, for --resume."""
        return self.path / "resume.pt"

    @property
    def metrics_path(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    def log(self, entry: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl; the folder is made where there is none."""
        self.path.mkdir(parents=True, exist_ok=True)
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl; a line that a kill cut short is left out."""
        if not self.metrics_path.exists():
            return []
        lines = self.metrics_path.read_text("utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def forget_after(self, step: int) -> None:
        """Drop the lines of metrics.jsonl that a resumed run will write again."""
        kept = [entry for entry in self.metrics() if entry["step"] <= step]
        lines = "".join(json.dumps(entry) + "\n" for entry in kept)
        write_file(self.metrics_path, lines.encode())

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace resume.pt.

        Raises:
            RunError: it cannot be written, e.g. the disk is full; the last one is kept.
        """
        try:
            with whole_file(self.resume_path) as part, part.open("wb") as file:
                torch.save({**state, "origin": self._origin(), "classes": self._names()}, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:  # torch wraps a short write in a RuntimeError
            raise _unwritable(self.resume_path, error) from error

    def load_state(self) -> dict[str, Any] | None:
        """Read resume.pt without running any code that it may hold; None if there is none yet.

        Raises:
            RunError: it is damaged, or began with other classes, or with another network than
                --init or --teacher name now.
        """
        if not self.resume_path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(self.resume_path, "cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a foreign file
            kind = file_kind(self.resume_path)
            found = "is damaged" if kind == TORCH else f"is {kind}, not the state of a training"
            raise RunError(f"{self.resume_path} {found}; start anew with --force") from error
        begun, now = state.pop("origin", {}), self._origin()
        for name in begun.keys() & now.keys():
            if begun[name] != now[name]:
                raise RunError(
                    f"{self.resume_path} began with another --{name.removesuffix(SHA256)} than "
                    f"{self.info.training.get(name.removesuffix(SHA256))} is now; bring that back, "
                    "or start anew with --force"
                )
        learnt, names = state.pop("classes", self._names()), self._names()
        if learnt != names:  # the weights know numbers alone
            raise RunError(
                f"{self.resume_path} learnt the classes {', '.join(learnt)}, in this order; now "
                f"they are {', '.join(names)}: bring those back, or start anew with --force"
            )
        return state

    def _names(self) -> list[str]:
        return [entry.name for entry in self.info.classes]

    def _origin(self) -> dict[str, str]:
        """Return the hashes of the networks that the training takes from."""
        said = self.info.training.items()
        return {name: value for name, value in said if name.endswith(SHA256) and value}

    def save_model(self, model: nn.Module, training: Mapping[str, Any], path: Path) -> None:
        """Replace model_path or another file; `training` is added to what the header says of it."""
        info = dataclasses.replace(self.info, training={**self.info.training, **training})
        try:
            save_checkpoint(path, model, info)
        except (OSError, RuntimeError) as error:
            raise _unwritable(path, error) from error


def _unwritable(path: Path, error: Exception) -> RunError:
    return RunError(
        f"cannot write {path} ({error}); the last whole one is kept. Free some disk space, then "
        "go on with --resume"
    )


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a run folder: two trainings in one would mix their weights.

    The thread that holds it already goes on.

    Raises:
        RunError: another process or thread holds it.
    """

    def refuse() -> None:
        raise RunError(
            f"another training is writing into {folder}; wait for it, stop it, or --name another"
        )

    place = os.getpid(), threading.get_ident(), folder.resolve()
    with ExitStack() as stack:
        if place not in _HELD:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(folder / LOCK, refuse))
            except OSError as error:  # some disks of clusters have no locks
                print(f"{folder} cannot be locked ({error}): start no other there", file=sys.stderr)
            _HELD.add(place)
            stack.callback(_HELD.discard, place)
        yield
