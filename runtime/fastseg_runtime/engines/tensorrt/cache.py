"""Engines built here, kept for the next start, and only those.

FASTSEG_CACHE names the folder (default: $XDG_CACHE_HOME/fastseg, else ~/.cache/fastseg),
FASTSEG_CACHE_MB its size (default 2048; the longest unused go first). Per engine:

    engines/DIGEST.plan   the serialized engine
    engines/DIGEST.json   its build record: the key, sha256 of the plan, whether it is trusted
    engines/DIGEST.lock   held while somebody builds it

A plan is native code. It is loaded only if its record carries the same key and hash, and the
folder is one that nobody else can write to.
"""

import dataclasses
import hashlib
import json
import logging
import os
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from fastseg_runtime.arrays.shared_files import cache_folder, is_private, locked, write_file
from fastseg_runtime.engines.backend import BuildRefusedError
from fastseg_runtime.engines.tensorrt.builder import BuiltEngine, Progress, build_engine
from fastseg_runtime.engines.tensorrt.choice import build_fastest, time_in_turns
from fastseg_runtime.engines.tensorrt.cuda import Cuda
from fastseg_runtime.engines.tensorrt.platform import Platform

DEFAULT_LIMIT_MB = 2048
BUILDER = 2  # raised when our builder changes so that engines of the former one do not serve
log = logging.getLogger("fastseg_runtime")


@dataclass(frozen=True)
class EngineKey:
    """Everything that an engine depends on; a change of any of it means another engine."""

    artifact_sha256: str  # of the ONNX file, or of the hashes of those that it was chosen from
    precision: str
    tensorrt: str
    gpu: str
    l4t: str
    builder: int = BUILDER

    @property
    def digest(self) -> str:
        """Return the name of the engine's files."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def engine_key(artifact_sha256: str, precision: str, platform: Platform) -> EngineKey:
    """Return the key of an artifact's engine on this machine."""
    gpu = platform.gpu
    place = f", {platform.board}" if platform.board else ""
    return EngineKey(
        artifact_sha256=artifact_sha256,
        precision=precision,
        tensorrt=platform.release.version,
        gpu=f"{gpu.name} (SM {gpu.sm}, {gpu.multiprocessors} multiprocessors{place})",
        l4t=platform.l4t,
    )


@dataclass(frozen=True)
class LocalEngine:
    """A serialized engine that came out of our own builder on this machine."""

    key: EngineKey
    plan: bytes
    record: Dict[str, Any]

    @property
    def trusted(self) -> bool:
        """Return whether the engine has passed the bundle's self-test."""
        return self.record.get("trusted") is True


@dataclass(frozen=True)
class CacheEntry:
    """A line of `fastseg-run --cache`."""

    digest: str
    key: EngineKey
    bytes: int
    used_s: float  # time of the last use, seconds since the epoch
    trusted: bool


class EngineCache:
    """The engines in one folder, by default as the module says.

    A folder that cannot be written or trusted is no error: engines are then built to memory at
    every start, and a warning says so.
    """

    def __init__(self, folder: Optional[Path] = None, limit_bytes: Optional[int] = None) -> None:
        self.folder = (folder or cache_folder()) / "engines"
        self.limit_bytes = cache_limit_bytes() if limit_bytes is None else limit_bytes

    def load(self, key: EngineKey) -> Optional[LocalEngine]:
        """Return the engine of a key, or None if there is none that may be used."""
        plan_path, record_path = self._paths(key.digest)
        try:
            was_private = is_private(self.folder)  # while it was read, not only afterwards
            plan = plan_path.read_bytes()
            record = json.loads(record_path.read_text(encoding="utf-8"))
            private = was_private and is_private(self.folder)
        except (OSError, ValueError):
            return None
        reason = self._why_refused(key, plan, record, private)
        if reason:
            log.warning("not using the engine %s: %s; building it again", plan_path, reason)
            return None
        with suppress(OSError):
            os.utime(record_path)  # the prune() of another day spares what was used today
        return LocalEngine(key, plan, record)

    def store(self, key: EngineKey, plan: bytes, record: Dict[str, Any]) -> bool:
        """Keep an engine, not trusted yet; return whether that worked."""
        plan_path, record_path = self._paths(key.digest)
        full = {
            **record,
            "key": dataclasses.asdict(key),
            "engine_sha256": hashlib.sha256(plan).hexdigest(),
            "trusted": False,
        }
        try:
            self._make_folder()
            write_file(plan_path, plan)
            write_file(record_path, _to_json(full))
        except OSError as error:
            self.remove(key.digest)
            log.warning(
                "cannot keep the TensorRT engine (%s): it is in memory only and will be built "
                "again at the next start; set FASTSEG_CACHE to a folder with space",
                error,
            )
            return False
        self.prune(spare=key.digest)
        return True

    def trust(self, key: EngineKey) -> None:
        """Note that the engine passed the self-test, so that it need not be run again."""
        record_path = self._paths(key.digest)[1]
        with suppress(OSError, ValueError):
            record = json.loads(record_path.read_text(encoding="utf-8"))
            write_file(record_path, _to_json({**record, "trusted": True}))

    def remove(self, digest: str) -> None:
        """Forget an engine, as after a failed self-test."""
        for path in self._paths(digest):
            with suppress(OSError):
                path.unlink()

    def entries(self) -> List[CacheEntry]:
        """Return what is kept, the longest unused first."""
        found = []
        for path in self.folder.glob("*.json"):
            with suppress(OSError, ValueError, TypeError, KeyError):
                record = json.loads(path.read_text(encoding="utf-8"))
                entry = CacheEntry(
                    digest=path.stem,
                    key=EngineKey(**record["key"]),
                    bytes=path.with_suffix(".plan").stat().st_size,
                    used_s=path.stat().st_mtime,
                    trusted=record.get("trusted") is True,
                )
                found.append(entry)
        return sorted(found, key=lambda entry: entry.used_s)

    def clear(self) -> int:
        """Remove everything and return how many bytes that freed.

        A build that is under way keeps its lock and stores its engine afterwards.
        """
        paths = [path for path in self.folder.glob("*") if path.suffix != ".lock"]
        freed = 0
        for path in paths:
            with suppress(OSError):
                freed += path.stat().st_size
                path.unlink()
        return freed

    def prune(self, spare: str) -> None:
        """Remove the longest unused engines, all but `spare`, until the rest fit the limit."""
        entries = self.entries()
        total = sum(entry.bytes for entry in entries)
        for entry in entries:
            if total > self.limit_bytes and entry.digest != spare:
                self.remove(entry.digest)
                total -= entry.bytes

    @contextmanager
    def building(self, key: EngineKey) -> Iterator[None]:
        """Hold the right to build an engine; others who want it wait, then find it built."""
        with ExitStack() as stack:
            with suppress(OSError):  # read-only: everybody builds for himself
                self._make_folder()
                told = "another process is building this engine: waiting for it"
                path = self.folder / f"{key.digest}.lock"
                stack.enter_context(locked(path, on_wait=lambda: log.warning(told)))
            yield

    def load_timing_cache(self, key: EngineKey) -> bytes:
        """Return what earlier builds with this TensorRT on this GPU measured, or nothing."""
        try:
            return self._timing_path(key).read_bytes() if is_private(self.folder) else b""
        except OSError:
            return b""

    def store_timing_cache(self, key: EngineKey, timing_cache: bytes) -> None:
        """Keep the builder's measurements for later builds."""
        with suppress(OSError):
            self._make_folder()
            write_file(self._timing_path(key), timing_cache)

    def _why_refused(self, key: EngineKey, plan: bytes, record: Any, private: bool) -> str:
        if not isinstance(record, dict) or record.get("key") != dataclasses.asdict(key):
            return "its build record is for another engine"
        if record.get("engine_sha256") != hashlib.sha256(plan).hexdigest():
            return "it is not the file that was built here (sha256 differs from the build record)"
        if private:
            return ""
        return f"others can write to its folder (chown it to you and chmod 700 {self.folder})"

    def _make_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _paths(self, digest: str) -> Tuple[Path, Path]:
        return self.folder / f"{digest}.plan", self.folder / f"{digest}.json"

    def _timing_path(self, key: EngineKey) -> Path:
        place = hashlib.sha256(f"{key.tensorrt}\n{key.gpu}\n{key.l4t}".encode()).hexdigest()[:32]
        return self.folder / f"{place}.timing"


def _digest(graphs: Mapping[str, bytes]) -> str:
    """Return the SHA-256 of a graph, or of those of several."""
    first, *others = (hashlib.sha256(onnx).hexdigest() for onnx in graphs.values())
    return hashlib.sha256("".join((first, *others)).encode()).hexdigest() if others else first


def cache_limit_bytes() -> int:
    """Return the size that the cache may have.

    Raises:
        ValueError: FASTSEG_CACHE_MB is no number.
    """
    text = os.environ.get("FASTSEG_CACHE_MB", str(DEFAULT_LIMIT_MB))
    if not text.isdigit():
        raise ValueError(f"FASTSEG_CACHE_MB is {text!r}; expected a number of megabytes")
    return int(text) * 1_000_000


def _to_json(record: Dict[str, Any]) -> bytes:
    return (json.dumps(record, indent=1) + "\n").encode()


@dataclass(frozen=True)
class EngineSource:
    """What engines are built from and where: the same for all of a backend's calls."""

    trt: Any  # the tensorrt module
    cuda: Cuda
    platform: Platform
    cache: EngineCache
    device: int = 0

    def get(
        self,
        graphs: Mapping[str, bytes],
        precision: str,
        build: str = "auto",
        progress: Optional[Progress] = None,
    ) -> LocalEngine:
        """Return the engine of an artifact, from the cache or by building it.

        Args:
            graphs: ONNX models by file; of several the one whose engine is fastest here is kept.
            build: "auto": build it if need be, which takes minutes; "never": refuse instead.
            progress: called about twice a second during a build.

        Raises:
            BuildRefusedError: build is "never" and there is none.
            TensorRTError: the build failed.
        """
        key = engine_key(_digest(graphs), precision, self.platform)
        cached = self.cache.load(key)
        if cached is not None:
            return cached
        if build == "never":
            raise BuildRefusedError(
                f"no TensorRT engine for this artifact ({precision}, TensorRT {key.tensorrt}, "
                f"{key.gpu}) in {self.cache.folder}, and build is 'never'; "
                "build it ahead with fastseg-run --prepare BUNDLE"
            )
        with self.cache.building(key):
            cached = self.cache.load(key)  # somebody else may have built it meanwhile
            if cached is not None:
                return cached
            built = build_fastest(
                graphs,
                lambda onnx: self.build(onnx, precision, progress),
                lambda plans: time_in_turns(self.trt, self.cuda, plans, self.device),
            )
            self.cache.store(key, built.plan, built.record)
            return LocalEngine(key, built.plan, built.record)

    def build(self, onnx: bytes, precision: str, progress: Optional[Progress]) -> BuiltEngine:
        """Build an engine that is kept nowhere; what the builder measured is, for the next build.

        Raises:
            TensorRTError: it failed; the message says why and what to do.
        """
        key = engine_key(hashlib.sha256(onnx).hexdigest(), precision, self.platform)
        measured = self.cache.load_timing_cache(key)
        built = build_engine(self.trt, self.cuda, onnx, precision, measured, self.device, progress)
        self.cache.store_timing_cache(key, built.timing_cache)
        return built
