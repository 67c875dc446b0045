"""The settings that a run must leave as they were: power mode, clocks' limits, governors.

A power mode that is changed on request is given back by a guard: a small process that waits until
its caller is gone, for whatever reason, and then restores. `python3 -m remote_bench.agent.settings
ROOT ID` is that guard.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from typing import Any, Dict, List, Optional

from .board import Board, Outcome
from .channel import Failure
from .process import module_command, module_environment

_PATTERNS = (
    "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor",
    "/sys/devices/system/cpu/cpufreq/policy*/scaling_min_freq",
    "/sys/devices/system/cpu/cpufreq/policy*/scaling_max_freq",
    "/sys/devices/system/cpu/cpufreq/policy*/energy_performance_preference",
    "/sys/firmware/acpi/platform_profile",
    "/sys/devices/system/cpu/online",
    "/sys/devices/system/cpu/intel_pstate/no_turbo",
    "/sys/devices/system/cpu/cpufreq/boost",
    "/sys/class/devfreq/*/governor",
    "/sys/class/devfreq/*/min_freq",
    "/sys/class/devfreq/*/max_freq",
)
_NAMED = re.compile(r"NV Power Mode: *(\S+)\s+([0-9]+)")
_HZ = re.compile(r"^ *(GPU|EMC) MAX_FREQ +(-?[0-9]+)", re.MULTILINE)
_FAN = re.compile(r"NV Fan Mode: *(\S+)")
_MODEL = re.compile(r"<\s*POWER_MODEL\s+ID=([0-9]+)\s+NAME=(\S+)\s*>")
POWER_MODE = "power mode"  # what a change of it is called
_STATUS = "/var/lib/nvpmodel/status"
_MODE_S = 2.0  # between two calls of nvpmodel, which is a process; the file is read each time
_MOST_CHANGES = 1000  # a governor that flips once a second for a quarter of an hour
_TIMEOUT_S = 30  # nvpmodel takes seconds; more on a busy board


def read_power_mode(board: Board) -> Optional[Dict[str, Any]]:
    """Return {"id", "name", "fan", "source"}; None on a board without power modes.

    Without root some releases print "NVPM ERROR" after a correct answer: the answer counts.
    """
    output = board.run(["nvpmodel", "-q"]).output
    named, fan = _NAMED.search(output), _FAN.search(output)
    if named:
        number, name = int(named.group(2)), named.group(1)
        mode = {"id": number, "name": name, "source": "nvpmodel -q"}
        return dict(mode, fan=fan.group(1) if fan else None, **_mode_mhz(board, number))
    status = re.search(r"pmode:([0-9]+)", board.text(_STATUS) or "")
    if not status:
        return None
    number, names = int(status.group(1)), {v: k for k, v in mode_ids(board).items()}
    source = "/var/lib/nvpmodel/status"
    mode = {"id": number, "name": names.get(number), "source": source, "fan": None}
    return dict(mode, **_mode_mhz(board, number))


def _mode_mhz(board: Board, number: int) -> Dict[str, Optional[float]]:
    """Return the highest clocks of a mode by nvpmodel's table; None where it sets no limit.

    A GPU without a limit has the highest clock that there is.
    """
    text = board.text("/etc/nvpmodel.conf") or ""
    part = re.search(rf"< *POWER_MODEL +ID={number} (.*?)(?:< *POWER_MODEL|\Z)", text, re.DOTALL)
    hz = {unit: int(digits) for unit, digits in _HZ.findall(part.group(1) if part else "")}
    mhz = {unit: hz[unit] / 1e6 if hz.get(unit, 0) > 0 else None for unit in ("GPU", "EMC")}
    for folder in board.glob("/sys/class/devfreq/*gpu*") if mhz["GPU"] is None else ():
        steps = (board.text(folder + "/available_frequencies") or "").split()
        mhz["GPU"] = max((int(hz) / 1e6 for hz in steps if hz.isdigit()), default=None)
    return {"gpu_mhz": mhz["GPU"], "emc_mhz": mhz["EMC"]}


def mode_ids(board: Board) -> Dict[str, int]:
    """Return the id of each mode by name; ids differ from board to board."""
    text = board.text("/etc/nvpmodel.conf") or ""
    return {name: int(number) for number, name in _MODEL.findall(text)}


def set_power_mode(board: Board, wanted: str) -> Dict[str, Any]:
    """Change to a mode given by id or name and return what the board is in then.

    Raises:
        Failure: no such mode, no permission, or a mode that needs a reboot.
    """
    modes = mode_ids(board)
    if not wanted.isdigit() and wanted not in modes:
        has = f"this board has {sorted(modes)}"
        raise Failure("power_mode", f"no power mode {wanted!r}; {has}")
    number = int(wanted) if wanted.isdigit() else modes[wanted]
    outcome = _nvpmodel(board, number)
    mode = read_power_mode(board)
    if mode is None or mode["id"] != number:
        said = (outcome.errors or outcome.output).strip()[-300:]
        raise Failure(
            "power_mode",
            f"the board did not change to power mode {wanted}: it needs root (sudo without a "
            f"password) or a reboot. nvpmodel said: {said or 'nothing'}",
        )
    return mode


def _nvpmodel(board: Board, number: int) -> Outcome:
    # Standard input is empty: a mode that asks "reboot now?" gets no yes.
    program = board.tool("nvpmodel")
    command = [program or "nvpmodel", "-m", str(number)]
    if program and os.geteuid() != 0 and board.tool("sudo"):
        command = ["sudo", "-n", *command]
    return board.run(command, _TIMEOUT_S)


class Guard:
    """Restores a power mode when it is closed, and also when this process dies."""

    def __init__(self, board: Board, number: int) -> None:
        self._process = subprocess.Popen(
            [*module_command("settings"), board.root, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a signal to our group must not end it
            env=module_environment(),
        )

    def restore(self) -> Dict[str, Any]:
        """Give the mode back; return {"ok", "mode"}, what the board is in now."""
        try:
            output, _ = self._process.communicate(timeout=2 * _TIMEOUT_S)
            answer: Dict[str, Any] = json.loads(output.decode("utf-8"))
        except (subprocess.TimeoutExpired, ValueError):
            answer = {"ok": False, "mode": None}
        return answer


def read_settings(board: Board) -> Dict[str, Optional[str]]:
    """Return the text of each file that sets a clock; None where it cannot be read."""
    files = [path for pattern in _PATTERNS for path in board.glob(pattern)]
    return {path: board.text(path) for path in files}


class SettingsWatch:
    """Notes what somebody changes: power mode, governors, limits of clocks."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._values = read_settings(board)
        self._mode, self._mode_due = self._read_mode(), 0.0
        self.changes: List[List[Any]] = []  # time, what, before, after

    def look(self, now: float) -> None:
        """Compare with the last look."""
        for path, old in self._values.items():
            self._note(now, path, old, self._board.text(path))
        if now >= self._mode_due:
            mode = self._read_mode()
            self._note(now, POWER_MODE, self._mode, mode)
            self._mode, self._mode_due = mode, now + (0 if self._has_status else _MODE_S)

    @property
    def _has_status(self) -> bool:
        return self._board.text(_STATUS) is not None

    def _read_mode(self) -> Optional[str]:
        status = self._board.text(_STATUS)
        mode = None if status else read_power_mode(self._board)
        return status or (f"{mode['name']} ({mode['id']})" if mode else None)

    def _note(self, now: float, what: str, old: Optional[str], new: Optional[str]) -> None:
        if new is not None and new != old and len(self.changes) < _MOST_CHANGES:
            self.changes.append([round(now, 3), what, old, new])
            if what != POWER_MODE:
                self._values[what] = new


def inventory(board: Board, work_dir: str) -> Dict[str, Any]:
    """Return {"power_mode", "settings", "processes"}: the same before and after, or it is told."""
    return {
        "power_mode": read_power_mode(board),
        "settings": read_settings(board),
        "processes": _processes_in(work_dir),
    }


def _processes_in(work_dir: str) -> List[str]:
    # Processes whose current folder is the work folder, this one left out.
    real = os.path.realpath(work_dir)
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc") else []):
        try:
            if int(pid) != os.getpid() and os.readlink(f"/proc/{pid}/cwd") == real:
                with open(f"/proc/{pid}/comm", "rb") as file:
                    found.append(file.read().decode("utf-8", "replace").strip())
        except OSError:  # ended meanwhile, or another user's
            continue
    return sorted(found)


def _guard(root: str, number: str) -> None:
    for name in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    sys.stdin.read()  # until the caller closes it or is gone
    board = Board(root)
    try:
        answer = {"ok": True, "mode": set_power_mode(board, number)}
    except Failure:
        answer = {"ok": False, "mode": read_power_mode(board)}
    with contextlib.suppress(OSError):
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _guard(sys.argv[1], sys.argv[2])
