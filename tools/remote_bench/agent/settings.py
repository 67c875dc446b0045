"""The settings that a run must leave as they were: clocks' limits, governors, power mode.

Also which processes of ours are there, so that the report can say that none stayed.
"""

import os
from typing import Any, Dict, List, Optional

from .board import Board
from .power_mode import read_power_mode

_PATTERNS = (
    "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor",
    "/sys/devices/system/cpu/cpufreq/policy*/scaling_min_freq",
    "/sys/devices/system/cpu/cpufreq/policy*/scaling_max_freq",
    "/sys/devices/system/cpu/online",
    "/sys/devices/system/cpu/intel_pstate/no_turbo",
    "/sys/devices/system/cpu/cpufreq/boost",
    "/sys/class/devfreq/*/governor",
    "/sys/class/devfreq/*/min_freq",
    "/sys/class/devfreq/*/max_freq",
)


def read_settings(board: Board) -> Dict[str, Optional[str]]:
    """Return the text of each file that sets a clock; None where it cannot be read."""
    files = [path for pattern in _PATTERNS for path in board.glob(pattern)]
    return {path: board.text(path) for path in files}


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
