"""Processes: started so that they do not outlive this one, and what they use, read from /proc."""

import ctypes
import glob
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)  # loaded here: nothing may be loaded between fork and exec
_KB = re.compile(r"^(\w+):\s+([0-9]+) kB", re.MULTILINE)
_C_LOCALE = {"LC_ALL": "C", "LANG": "C"}  # tools print plain decimals
_TICKS_PER_S = float(os.sysconf("SC_CLK_TCK"))


def module_command(module: str) -> List[str]:
    """Return the command that runs a module of this package."""
    return [sys.executable, "-u", "-m", f"{__package__}.{module}"]


def module_environment() -> Dict[str, str]:
    """Return an environment in which this package can be imported by that command."""
    folder = str(Path(__file__).resolve().parents[2])  # of remote_bench/agent/
    return dict(os.environ, PYTHONPATH=folder, PYTHONDONTWRITEBYTECODE="1", **_C_LOCALE)


def _die_with_parent(parent: int) -> None:
    """Make the kernel kill this process when its parent is gone, even by SIGKILL."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before the call
        os._exit(1)


def start(command: List[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start a process that the kernel kills when the thread that starts it is gone."""
    parent = os.getpid()
    return subprocess.Popen(
        command,
        env=options.pop("env", dict(os.environ, **_C_LOCALE)),
        stdin=options.pop("stdin", subprocess.DEVNULL),
        preexec_fn=lambda: _die_with_parent(parent),
        **options,
    )


def lead_group() -> bool:
    """Make this process the leader of a process group of its own; say whether it is."""
    try:
        os.setpgid(0, 0)
    except OSError:  # a session's leader is its group's leader already
        return os.getpgrp() == os.getpid()
    return True


def memory_kb(pid: int) -> Dict[str, Optional[int]]:
    """Return {"pss_kb", "peak_rss_kb"}; None where the kernel does not tell.

    PSS counts a page that several processes share in parts; the peak is the kernel's VmHWM.
    """
    rollup = _fields(f"/proc/{pid}/smaps_rollup")  # Linux 4.14 and newer
    peak_kb = _fields(f"/proc/{pid}/status").get("VmHWM")
    return {"pss_kb": rollup.get("Pss"), "peak_rss_kb": peak_kb}


def cpu_seconds(pid: int) -> Optional[float]:
    """Return user and system time of a process and its ended children, in s; None if it is gone."""
    text = _text(f"/proc/{pid}/stat")
    fields = text.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    if len(fields) < 15:
        return None
    return sum(int(field) for field in fields[11:15]) / _TICKS_PER_S


def cores_in_use(pid: int, before: Dict[str, int]) -> Tuple[List[int], Dict[str, int]]:
    """Return the cores on which threads of a process were last seen that ran since, and their time.

    Args:
        pid: of the process.
        before: {thread: CPU time} of the last call.
    """
    cores, now = set(), {}
    for path in glob.glob(f"/proc/{pid}/task/*/stat"):
        fields = _text(path).rpartition(")")[2].split()
        if len(fields) > 36:
            now[path] = int(fields[11]) + int(fields[12])
            if now[path] > before.get(path, 0):
                cores.add(int(fields[36]))
    return sorted(cores), now


def processes(on: Optional[Set[int]] = None) -> Dict[int, Tuple[str, float]]:
    """Return the name and the CPU seconds so far of each process, or of some cores'."""
    found = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        name, _, rest = _text(path).partition("(")[2].rpartition(")")
        fields = rest.split()
        if len(fields) > 36 and (on is None or int(fields[36]) in on):  # proc(5): its last core
            found[int(path.split("/")[2])] = (
                name,
                (int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
            )
    return found


def foreign_load(seconds: float, wait: Callable[[float], object]) -> Tuple[float, List[str]]:
    """Return the share of our cores that other processes use, and the names of the busiest.

    Where the kernel's counts tell nothing, it is that of the processes that are seen.

    Args:
        seconds: how long to look.
        wait: lets so many seconds pass.
    """
    cores, ours, before = os.sched_getaffinity(0), {os.getpid(), os.getppid()}, processes()
    busy, own, begin = busy_cpu_seconds(), time.process_time(), time.monotonic()
    wait(seconds)
    took_s = (time.monotonic() - begin) * len(cores)
    after, own = busy_cpu_seconds(), time.process_time() - own
    used = [
        ((cpu_s - before.get(pid, (name, cpu_s))[1]) / took_s, name)
        for pid, (name, cpu_s) in processes(cores).items()
        if pid not in ours
    ]
    names = [
        f"{name} {share:.0%}" for share, name in sorted(used, reverse=True)[:3] if share > 0.02
    ]
    if busy is None or after is None or after < busy:
        return sum(share for share, _ in used), names
    return max(0.0, (after - busy - own) / took_s), names


def busy_cpu_seconds() -> Optional[float]:
    """Return the time the cores we may run on were busy since boot, in s, steal left out.

    Of a container whose /proc/stat numbers its own cores anew, that is all of them. None where
    nothing is counted (a sandbox such as gVisor shows zeros).
    """
    rows = {fields[0]: fields[1:8] for fields in map(str.split, _text("/proc/stat").split("\n"))
            if fields and fields[0].startswith("cpu")}  # fmt: skip
    ours = [f"cpu{core}" for core in os.sched_getaffinity(0)]
    is_part = len(ours) < len(rows) - 1 and rows.keys() >= set(ours)
    found = [rows.get(name, []) for name in (ours if is_part else ["cpu"])]
    if any(len(fields) < 7 for fields in found):
        return None
    idle, iowait = 3, 4
    busy = [int(f) for row in found for n, f in enumerate(row) if n not in (idle, iowait)]
    return sum(busy) / _TICKS_PER_S or None


def available_memory_kb() -> Optional[int]:
    """Return MemAvailable of the whole system."""
    return _fields("/proc/meminfo").get("MemAvailable")


def oom_kills() -> Optional[int]:
    """Return how many processes the kernel killed for memory since boot; Linux 4.13 and newer."""
    found = re.search(r"^oom_kill ([0-9]+)", _text("/proc/vmstat"), re.MULTILINE)
    return int(found.group(1)) if found else None


def _fields(path: str) -> Dict[str, int]:
    return {name: int(value) for name, value in _KB.findall(_text(path))}


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "replace")
    except OSError:  # gone, or not ours
        return ""
