"""What is asked for, and what a board was prepared with for it."""

import dataclasses
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastseg_runtime.bundle.manifest import Manifest
from fastseg_targets.device import load_device

from remote_bench.run.wheels import engine_modules

TOOL = f"fastseg-edge {importlib.metadata.version('fastseg-edge')}"


@dataclass(frozen=True)
class Untrained:
    """A network of ours without weights, for --sweep."""

    variant: str
    width: int
    height: int

    @property
    def name(self) -> str:
        """Return a name for files and tables."""
        return f"{self.variant}-{self.width}x{self.height}"


@dataclass(frozen=True)
class Plan:
    """What to measure, the same for every board."""

    bundle: Path | None = None  # None: the newest here, or one of ours
    untrained: Untrained | None = None  # instead of a bundle
    target: str | None = None
    require_usage: str | None = None  # "commercial": of the weights
    seconds: float = 20.0
    warmup_s: float = 2.0
    idle_s: float = 5.0
    fps: float | None = None  # of a paced run beside the one flat out
    frames: Path | None = None  # folder or video
    power_mode: str | None = None
    sampler_hz: float = 10.0
    deploy: str | None = None  # folder on the board
    keep: bool = False
    base: str | None = None  # of the work folder
    root: str = "/"  # of the board's own files


@dataclass(frozen=True)
class Prepared:
    """A board with all on it that the run needs."""

    bundle: Path
    bundle_sha256: str
    manifest: Manifest
    device: str
    probe: dict[str, Any]
    runtime_paths: tuple[str, ...]  # for sys.path on the board
    frames: str | None  # folder in the work folder

    def request(self, plan: Plan, detach: bool = False) -> dict[str, Any]:
        """Return what the agent is asked to do."""
        return {
            "bundle": BUNDLE,
            "target": plan.target,
            "runtime_paths": list(self.runtime_paths),
            "frames": self.frames,
            "seconds": plan.seconds,
            "warmup_s": plan.warmup_s,
            "idle_s": plan.idle_s,
            "fps": plan.fps,
            "sampler_hz": plan.sampler_hz,
            "engines": engine_modules(),
            "power_mode": plan.power_mode,
            "detach": detach,
            "device": dataclasses.asdict(load_device(self.device)),
        }


BUNDLE = "bundle.fastseg"  # its name in the work folder
