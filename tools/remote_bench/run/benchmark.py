"""What is measured (Benchmark), on which host (Measurement), with what there (Prepared)."""

import dataclasses
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fastseg_runtime.arrays.stats import PERCENTILES, frames_needed
from fastseg_runtime.bundle.manifest import Manifest
from fastseg_runtime.engines.own_onnx import NOTHING_SAID, OwnFile
from fastseg_targets.device import Device

from remote_bench.host.host import Cancel, Host, Watch
from remote_bench.link.connection import LIMITS, Connection, Limits
from remote_bench.run.wheels import engine_modules

TOOL = f"fastseg-edge {importlib.metadata.version('fastseg-edge')}"
BUNDLE = "bundle.fastseg"  # its name in the work folder


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
class Benchmark:
    """What to measure, the same for every board."""

    bundle: Path | None = None  # or an ONNX file; None: the newest here, or one of ours
    own_file: OwnFile = NOTHING_SAID
    untrained: Untrained | None = None  # instead of a bundle
    target: str | None = None
    every_target: bool = False  # one after the other, for `evidence`
    require_usage: str | None = None  # "commercial": of the weights
    seconds: float = 20.0  # of all blocks together
    repeats: int = 3  # blocks, each opened anew: the fewest with an interval between them
    turns: ClassVar[int] = 6  # runs a side of compare --on: of 3 pairs 10 % would not be found
    warmup_s: float = 2.0  # clocks go up within a second, and first frames are slow
    idle_s: float = 5.0
    percentiles: tuple[str, ...] = ("p99",)  # the run should be long enough for
    lengthen: bool = False  # it, if it is not
    soak: str | None = None  # minutes, or "steady"
    allow_busy: bool = False
    fps: float | None = None  # of a paced run beside the one flat out
    frames: Path | None = None  # folder or video
    power_mode: str | None = None
    sampler_hz: float = 10.0  # INA sensors average over 0.1 s
    deploy: str | None = None  # folder on the board
    keep: bool = False
    base: str | None = None  # of the work folder
    device: Device | None = None  # that the user names; else it is recognised
    binary: tuple[str, ...] = ()  # of a phone: the tool, and arguments of the user's
    root: str = "/"  # of the board's own files


@dataclass(frozen=True)
class Measurement:
    """One benchmark on one host, who watches it, and how it is called off."""

    host: Host
    benchmark: Benchmark
    watch: Watch
    cancel: Cancel
    limits: Limits = LIMITS

    def connect(self) -> Connection:
        """Start a keeper there."""
        self.watch.phase("connect")
        board = self._connect(self.limits)
        if swept := board.hello["swept"]:
            self.watch.note(f"removed what an earlier run had left: {', '.join(swept)}")
        return board

    def look_for_it(self) -> str | None:
        """Return the id of the board's boot, over a connection of its own."""
        limits = dataclasses.replace(self.limits, start_s=self.limits.search_s)
        with self._connect(limits) as board:
            boot_id: str | None = board.hello["boot_id"]
            return boot_id

    def _connect(self, limits: Limits) -> Connection:
        wanted = self.benchmark
        return Connection(self.host, limits, base=wanted.base, keep=wanted.keep, root=wanted.root)


@dataclass(frozen=True)
class Prepared:
    """A board with all on it that the run needs."""

    bundle: Path
    bundle_sha256: str
    manifest: Manifest
    device: Device
    probe: dict[str, Any]
    runtime_paths: tuple[str, ...]  # for sys.path on the board
    frames: str | None  # folder in the work folder
    name: str = BUNDLE  # of the bundle there
    frames_sha256: str | None = None

    def request(self, benchmark: Benchmark, detach: bool = False) -> dict[str, Any]:
        """Return what the agent is asked to do."""
        return {
            "bundle": self.name,
            "target": benchmark.target,
            "runtime_paths": list(self.runtime_paths),
            "frames": self.frames,
            "frames_sha256": self.frames_sha256,
            "seconds": benchmark.seconds,
            "repeats": benchmark.repeats,
            "warmup_s": benchmark.warmup_s,
            "idle_s": benchmark.idle_s,
            "least_frames": {n: frames_needed(PERCENTILES[n]) for n in benchmark.percentiles},
            "lengthen": benchmark.lengthen,
            "soak": benchmark.soak,
            "allow_busy": benchmark.allow_busy,
            "fps": benchmark.fps,
            "sampler_hz": benchmark.sampler_hz,
            "engines": engine_modules(),
            "power_mode": benchmark.power_mode,
            "detach": detach,
        }
