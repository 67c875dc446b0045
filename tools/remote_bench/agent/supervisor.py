"""One run on the board, phase by phase, with whatever happens cleaned up behind it.

quiet, build, selftest, settle, idle_before, run (flat out in blocks, then with and without the
sampler in turn, then paced and for long, where that was asked for), idle_after, restore.
"""

import json
import os
import threading
import time
from typing import Any, Dict, List, Optional

from . import VERSION
from .board import Board
from .channel import Channel, Failure
from .environment import Environment
from .probe import boot_id, probe, probe_mode
from .process import (
    available_memory_kb,
    busy_cpu_seconds,
    cpu_seconds,
    foreign_load,
    memory_kb,
)
from .sampler import Sampler
from .settings import Guard, inventory, read_power_mode, set_power_mode
from .worker_client import Aborted, Worker, tail

BUSY = 0.1  # of our cores: what others may use before a run, and during it (see verdict.LIMITS)
_QUIET_S, _BUSY_PATIENCE_S = 0.3, 30.0  # a look, and how long to wait for others to end
_MORE = 1.1  # times the seconds that a percentile needs: the rate may fall a little
_LONGEST_S = 3600.0  # of a run that is lengthened, or goes on until it is steady
_SOAK_POINTS, _SOAK_WINDOW_S = 60, 30.0  # of a soak's curve; of one that waits to be steady
_STEADY, _STEADY_WINDOWS = 0.01, 3  # its rate, from so many windows to the next so many
BUILD_TIMEOUT_S = 3600.0  # a TensorRT engine on a small board takes many minutes
ANSWER_TIMEOUT_S = 300.0  # imports from an SD card, frames into memory
_SETTLED_C = 0.5  # no zone moved more than so much, the step of many sensors...
_SETTLED_S = 3.0  # ...in so long, a few readings of a sensor
_LOOK_S = 0.5  # between two looks at the temperatures
_LOG_BYTES = 16384  # of the worker's output in the result
_PATIENCE_S = 300.0  # beyond the time that was asked for: _LEAST_FRAMES of a slow network
_LEAST_FRAMES = 3  # the fewest with a median
_OVERHEAD_SHARE = 0.25  # of the run: it may make it longer, and not much
_OVERHEAD_LEAST_S, _OVERHEAD_MOST_S = 1.0, 20.0  # shorter says nothing
_BLOCK_S, _BLOCK_FRAMES = 0.25, 5  # a block has at least that much: some samples, some frames
_LEAST_BLOCKS, _MOST_BLOCKS = 12, 80  # six pairs: the fewest whose median has an interval


class Supervisor:
    """Runs one request. `abort` may be set from any thread: the run ends within a second."""

    def __init__(self, request: Dict[str, Any], channel: Channel, abort: threading.Event) -> None:
        self._request, self._channel, self._abort = request, channel, abort
        self._board = Board(request.get("root") or "/")
        self._work_dir, self._idle_s = request["work_dir"], float(request["idle_s"])
        self._log = os.path.join(self._work_dir, "worker.log")
        self._worker: Optional[Worker] = None
        self._sampler: Optional[Sampler] = None
        self._guard: Optional[Guard] = None
        self._result: Dict[str, Any] = {
            "schema": VERSION,
            "request": {key: value for key, value in request.items() if key != "token"},
            "phases": [],
            "frames": {},
            "slices": [],
            "memory": {},
            "error": None,
        }

    def run(self) -> bool:
        """Run all phases, restore the board and write result.json; return whether it went well.

        Raises:
            Aborted: it was called off; the board is restored and no result is written.
        """
        begin = _clocks()
        self._result["probe"] = probe(self._board, self._request.get("engines") or ())
        self._result["inventory_before"] = inventory(self._board, self._work_dir)
        try:
            self._phases()
        except Failure as error:
            self._result["error"] = {"kind": error.kind, "message": str(error)}
            self._channel.emit("error", **self._result["error"])
        finally:
            self._restore()
        self._result["clock"] = {"begin": begin, "end": _clocks()}
        self._result["boot_id_after"] = boot_id(self._board)
        self._write_result()
        return self._result["error"] is None

    def _phases(self) -> None:
        self._enter("quiet")
        self._wait_for_quiet()
        self._set_power_mode()
        self._enter("build")
        self._build()
        self._enter("selftest")
        self._result["selftest"] = self._ask("selftest")
        frames = self._request.get("frames")
        folder = os.path.join(self._work_dir, frames) if frames else None
        self._ask("prepare", folder=folder)
        self._start_sampler()
        self._enter("settle")
        self._settle()
        self._enter("idle_before")
        self._wait(self._idle_s)
        self._enter("run")
        self._run_frames()
        self._enter("idle_after")
        self._wait(self._idle_s)

    # The phases, in their order.

    def _wait_for_quiet(self) -> None:
        patience_s = float(self._request.get("busy_patience_s", _BUSY_PATIENCE_S))
        end, told = time.monotonic() + patience_s, False
        while True:
            share, names = foreign_load(_QUIET_S, self._wait)
            gpu = Environment(self._board).read()["gpu_load"] or 0.0
            self._result["busy_before"] = {"cpu": share, "by": names}
            if max(share, gpu) <= BUSY or self._request.get("allow_busy", True):
                return
            said = f"other processes use {share:.0%} of the usable CPU cores ({', '.join(names)})"
            said += f" and {gpu:.0%} of the GPU" if gpu > BUSY else ""
            if not told:
                self._channel.emit("note", text=f"waiting for a quiet board: {said}")
            if told and time.monotonic() > end:
                text = f"{said}, after {patience_s:g} s still; stop them, or --allow-busy"
                raise Failure("board_busy", text)
            told = True

    def _set_power_mode(self) -> None:
        wanted = self._request.get("power_mode")
        before = read_power_mode(self._board)
        if not wanted:
            return
        if before is None:
            text = f"this board has no power modes (nvpmodel): leave --power-mode {wanted} out"
            raise Failure("power_mode", text)
        self._guard = Guard(self._board, before["id"])
        self._result["power_mode_set"] = set_power_mode(self._board, str(wanted))
        # What a report says of the board is what it measured in, not what it found.
        self._result["probe"].update(probe_mode(self._board))

    def _build(self) -> None:
        self._start_worker()
        first = cold = self._open()
        if first["built"]:  # measure memory and load without the builder's leftovers
            self._stop_worker()
            self._start_worker()
            cold = self._open()
        self._ask("close")
        warm = self._open()
        self._result["info"] = dict(warm["info"], engines=warm["engines"] or first["engines"])
        self._result["load"] = {
            "built": first["built"],
            "first_ms": first["load_ms"],
            "cold_ms": cold["load_ms"],
            "warm_ms": warm["load_ms"],
        }
        self._note_memory("opened")

    def _settle(self) -> None:
        limit, steady_since = time.monotonic() + 2 * self._idle_s, time.monotonic()
        last = self._celsius()
        while time.monotonic() < limit and time.monotonic() - steady_since < _SETTLED_S:
            self._wait(min(_LOOK_S, self._idle_s))
            now = self._celsius()
            if any(abs(now[zone] - last[zone]) > _SETTLED_C for zone in now if zone in last):
                last, steady_since = now, time.monotonic()

    def _run_frames(self) -> None:
        seconds, fps = float(self._request["seconds"]), self._request.get("fps")
        sampler = self._sampler_now()
        self._result["counters_before"] = sampler.environment.counters()
        self._result["power_mode_before"] = read_power_mode(self._board)
        assert self._worker is not None
        runs = FrameRuns(self._worker, sampler, self._channel, self._result)
        repeats = int(self._request.get("repeats") or 1)
        for number in range(repeats):
            if number:  # memory, threads and clocks fall anew, as they do from run to run
                self._ask("close")
                self._open()
            runs.slice("warmup", float(self._request["warmup_s"]))
            if not number:
                seconds = self._enough_s(seconds)
            runs.slice("flat_out", seconds / repeats)
        runs.measure_overhead(seconds)
        if fps:
            runs.slice("paced", seconds, float(fps))
        if self._request.get("soak"):
            runs.soak(self._request["soak"])
        self._result["counters_after"] = sampler.environment.counters()
        self._result["power_mode_after"] = read_power_mode(self._board)
        self._result["accuracy"] = self._ask("score")
        self._note_memory("ran")

    def _enough_s(self, seconds: float) -> float:
        """Return how long to run, and say before it what that cannot tell.

        The request's "least_frames" has the frames that a percentile needs; the warm-up shows the
        rate.
        """
        warmup = self._result["slices"][-1]
        rate = warmup["frames"] / (warmup["end"] - warmup["begin"])
        wanted = self._request.get("least_frames") or {}
        lacking = {name: count for name, count in wanted.items() if count > rate * seconds}
        if not lacking:
            return seconds
        needed_s: float = _MORE * max(lacking.values()) / rate
        need = f"{' and '.join(lacking)} {'needs' if len(lacking) == 1 else 'need'}"
        said = f"{need} {needed_s:.0f} s at {rate:.1f} frames a second"
        if self._request.get("lengthen") and needed_s <= _LONGEST_S:
            self._channel.emit("note", text=f"{said}: the run takes that instead of {seconds:g} s")
            return needed_s
        more = f"--seconds {needed_s:.0f} or --lengthen would"
        more = more if needed_s <= _LONGEST_S else "nor will an hour"
        self._channel.emit("note", text=f"{said}: {seconds:g} s will not tell; {more}")
        return seconds

    def _restore(self) -> None:
        self._enter("restore")
        try:
            if self._sampler is not None:
                self._sampler.stop()
                self._result["samples"] = self._sampler.data()
            self._stop_worker()
        finally:  # the mode is given back whatever became of those
            if self._guard is not None:
                self._result["power_mode_restored"] = self._guard.restore()
        self._result["log"] = tail(self._log, _LOG_BYTES)
        self._result["inventory_after"] = inventory(self._board, self._work_dir)
        self._leave()

    # What the phases are made of.

    def _start_worker(self) -> None:
        paths = [os.path.join(self._work_dir, path) for path in self._request["runtime_paths"]]
        self._worker = Worker(paths, self._log, self._abort)
        self._ask("hello")
        self._note_memory("imported")

    def _stop_worker(self) -> None:
        if self._worker is not None:
            self._worker.close()
        self._worker = None

    def _open(self) -> Dict[str, Any]:
        return self._ask(
            "open",
            timeout_s=BUILD_TIMEOUT_S,
            bundle=os.path.join(self._work_dir, self._request["bundle"]),
            target=self._request.get("target"),
            cache_dir=self._request.get("cache_dir"),
        )

    def _ask(
        self, command: str, timeout_s: float = ANSWER_TIMEOUT_S, **arguments: Any
    ) -> Dict[str, Any]:
        assert self._worker is not None
        return self._worker.ask(command, timeout_s, **arguments)

    def _start_sampler(self) -> None:
        self._sampler = Sampler(self._board, float(self._request["sampler_hz"]))
        self._sampler.pid = self._worker.pid if self._worker else None
        self._sampler.start()

    def _sampler_now(self) -> Sampler:
        assert self._sampler is not None
        return self._sampler

    def _note_memory(self, moment: str) -> None:
        assert self._worker is not None
        memory = dict(memory_kb(self._worker.pid), available_kb=available_memory_kb())
        self._result["memory"][moment] = memory

    def _celsius(self) -> Dict[str, float]:
        readings = self._sampler_now().environment.read()["celsius"]
        return {zone: value for zone, value in readings.items() if value is not None}

    def _wait(self, seconds: float) -> None:
        if self._abort.wait(seconds):
            raise Aborted()

    def _enter(self, name: str) -> None:
        self._leave()
        self._result["phases"].append({"name": name, "begin": time.monotonic(), "end": None})
        self._channel.emit("phase", name=name)

    def _leave(self) -> None:
        if self._result["phases"] and self._result["phases"][-1]["end"] is None:
            self._result["phases"][-1]["end"] = time.monotonic()

    def _write_result(self) -> None:
        path = os.path.join(self._work_dir, "result.json")
        part = f"{path}.part"
        try:
            with open(part, "w", encoding="ascii") as file:
                json.dump(self._result, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            if os.path.exists(part):
                os.unlink(part)
            raise


class FrameRuns:
    """Has the worker run frames in slices, and keeps every frame in the result."""

    def __init__(
        self, worker: Worker, sampler: Sampler, channel: Channel, result: Dict[str, Any]
    ) -> None:
        self._worker, self._sampler = worker, sampler
        self._channel, self._result = channel, result

    def slice(self, name: str, seconds: float, fps: Optional[float] = None) -> None:
        """Run frames for some seconds, flat out or at a rate."""
        before, begin = self._cpu_now(), time.monotonic()

        def keep(columns: Dict[str, List[Any]]) -> None:
            self._keep(name, columns)
            done = round(time.monotonic() - begin, 1)
            rate = _rate(columns)
            self._channel.emit("progress", slice=name, done=done, total=seconds, fps=rate)

        answer = self._worker.ask(
            "run", seconds + _PATIENCE_S, keep, seconds=seconds, fps=fps, least=_LEAST_FRAMES
        )
        cpu = {key: [before[key], value] for key, value in self._cpu_now().items()}
        self._result["slices"].append(dict(answer, name=name, fps=fps, cpu_s=cpu))

    def measure_overhead(self, run_s: float) -> None:
        """Run many short blocks with and without the sampler in turn.

        The order of a pair changes from one to the next, so that a drift of the board cancels out.
        """
        seconds = min(_OVERHEAD_MOST_S, _OVERHEAD_SHARE * run_s)
        if seconds < _OVERHEAD_LEAST_S:
            return
        blocks = self._overhead_blocks(seconds)
        for number in range(blocks):
            sampled = number % 4 in (1, 2)
            if not sampled:
                self._sampler.pause()
            try:
                self.slice("with_sampler" if sampled else "without_sampler", seconds / blocks)
            finally:
                self._sampler.resume()

    def soak(self, minutes: Any) -> None:
        """Run on, in windows of equal length: for some minutes, or until the rate is steady."""
        if minutes != "steady":
            whole_s = 60 * float(minutes)
            windows = max(2, min(_SOAK_POINTS, int(whole_s)))
            for _ in range(windows):
                self.slice("soak", whole_s / windows)
            return
        rates: List[float] = []
        while len(rates) * _SOAK_WINDOW_S < _LONGEST_S and not _is_steady(rates):
            self.slice("soak", _SOAK_WINDOW_S)
            part = self._result["slices"][-1]
            rates.append(part["frames"] / (part["end"] - part["begin"]))

    def _overhead_blocks(self, seconds: float) -> int:
        flat_out = self._result["slices"][-1]
        frame_s = (flat_out["end"] - flat_out["begin"]) / flat_out["frames"]
        blocks = int(seconds / max(_BLOCK_S, _BLOCK_FRAMES * frame_s))
        return 2 * (min(_MOST_BLOCKS, max(_LEAST_BLOCKS, blocks)) // 2)

    def _keep(self, name: str, columns: Dict[str, List[Any]]) -> None:
        frames = self._result["frames"].setdefault(name, {})
        for field, values in columns.items():
            frames.setdefault(field, []).extend(values)

    def _cpu_now(self) -> Dict[str, Optional[float]]:
        return {
            "busy": busy_cpu_seconds(),
            "worker": cpu_seconds(self._worker.pid),
            "supervisor": cpu_seconds(os.getpid()),
        }


def _clocks() -> Dict[str, float]:
    return {"wall_s": time.time(), "monotonic_s": time.monotonic()}


def _is_steady(rates: List[float]) -> bool:
    new, old = rates[-_STEADY_WINDOWS:], rates[-2 * _STEADY_WINDOWS : -_STEADY_WINDOWS]
    return len(old) == _STEADY_WINDOWS and abs(sum(new) / sum(old) - 1) < _STEADY


def _rate(columns: Dict[str, List[Any]]) -> Optional[float]:
    span = columns["t"][-1] - columns["t"][0] + columns["total_ms"][-1] / 1e3
    return round(len(columns["t"]) / span, 3) if span > 0 else None
