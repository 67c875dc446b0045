"""Temperatures, clocks, and what throttled: read once a second beside the power rails."""

import re
from typing import Any, Dict, List, Optional, Pattern

from .board import Board
from .rails import nvidia_gpus

# vcgencmd get_throttled: bits 0-3 now, the same things since boot in bits 16-19.
PI_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
# Cooling devices that hold something down: a Jetson's alerts, and CPU and GPU of other boards.
_THROTTLES = re.compile("throttle|cpufreq|devfreq")
_EMC_RATE = "/sys/kernel/debug/bpmp/debug/clk/emc/rate"  # of a Jetson, for root
# Names of devfreq devices: Jetsons, Mali and Adreno; DMC and EMC are memory, RKNPU and such NPUs.
_UNITS = {"gpu": "gpu|gp10b|gv11b|ga10b|gm20b|mali|kgsl", "memory": "dmc|emc|ddr|mif",
          "npu": "npu|dla"}  # fmt: skip
# Zones that are no temperatures: a constant; a Snapdragon's charge, voltage and current limits.
_TEMPERATURE = re.compile(r"^(?!PMIC|soc$|(.*[-_])?(vbat|ibat|bcl))", re.IGNORECASE)
_GATED_C = -256.0  # what a sensor of a rail-gated unit reads, in degrees
_MOST_ENTRIES = 512  # of zones, alerts, CPU policies: all are read each second
_WHOLE_C = 200  # below it a trip point is in degrees, of firmware that knows no thousandths


class Environment:
    """Finds the files once and reads them many times."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._zones = _named(board, "/sys/class/thermal/thermal_zone*/type", "temp")
        self._whole = {path for path in self._zones.values() if _has_whole_degrees(board, path)}
        self._clocks = _cpu_clocks(board)
        self._clocks.update(_devfreq_clocks(board))
        self._gpu_loads = board.glob("/sys/class/devfreq/*/device/load")  # of a Jetson: per mille
        self._alerts = _named(
            board, "/sys/class/thermal/cooling_device*/type", "cur_state", _THROTTLES
        )
        self._counters = _counter_files(board)
        self._is_pi = board.tool("vcgencmd") is not None
        self._gpus = nvidia_gpus() if board.root == "/" else []

    def read(self) -> Dict[str, Any]:
        """Return {"celsius", "mhz", "alerts", "gpu_load"}, None where a sensor is off.

        gpu_load is a share; None where nobody tells.
        """
        alerts = [name for name, path in self._alerts.items() if self._is_on(path)]
        bits = (read_pi_throttled(self._board) or 0) if self._is_pi else 0
        alerts += [f"Raspberry Pi: {name}" for bit, name in PI_BITS.items() if bits >> bit & 1]
        mhz = {name: self._mhz(path) for name, path in self._clocks.items()}
        loads = [self._board.number(path) for path in self._gpu_loads]
        shares = [load / 1e3 for load in loads if load is not None]
        for number, gpu in enumerate(self._gpus):
            mhz[f"gpu.nvml-{number}"] = gpu.mhz()
            alerts += [f"nvml-{number}: {name}" for name in gpu.throttled_by()]
            shares += [load for load in [gpu.load()] if load is not None]
        celsius = {name: self._celsius(path) for name, path in self._zones.items()}
        load = max(shares, default=None)
        return {"celsius": celsius, "mhz": mhz, "alerts": alerts, "gpu_load": load}

    def throttle_sources(self) -> List[str]:
        """Return what tells of throttling here."""
        found = [*self._alerts, *(f"nvml-{number}" for number in range(len(self._gpus)))]
        return found + [name for name, value in self.counters().items() if value is not None]

    def _is_on(self, path: str) -> bool:
        return (self._board.number(path) or 0) > 0

    def counters(self) -> Dict[str, Optional[int]]:
        """Return counters since boot: over-current events, thermal throttling, Pi's flags."""
        counts = {name: self._board.number(path) for name, path in self._counters.items()}
        if self._is_pi:
            counts["vcgencmd.throttled"] = read_pi_throttled(self._board)
        return counts

    def _celsius(self, path: str) -> Optional[float]:
        millidegrees = self._board.number(path)
        if millidegrees is None or millidegrees / 1e3 <= _GATED_C:
            return None
        is_whole = path in self._whole and abs(millidegrees) < _WHOLE_C
        return float(millidegrees) if is_whole else millidegrees / 1e3

    def _mhz(self, path: str) -> Optional[float]:
        number = self._board.number(path)
        if number is None:
            return None
        return number / 1e3 if "cpufreq" in path else number / 1e6  # kHz; devfreq has Hz


def read_pi_throttled(board: Board) -> Optional[int]:
    """Return the bits of `vcgencmd get_throttled`; None without access to /dev/vcio."""
    found = re.search(r"0x([0-9a-fA-F]{1,8})", board.run(["vcgencmd", "get_throttled"], 2).output)
    return int(found.group(1), 16) if found else None


def _by_number(board: Board, pattern: str) -> List[str]:
    # thermal_zone10 comes after thermal_zone9.
    found = board.glob(pattern)
    return sorted(found, key=lambda path: [int(digits) for digits in re.findall("[0-9]+", path)])


def _named(
    board: Board, pattern: str, value_file: str, wanted: Pattern[str] = _TEMPERATURE
) -> Dict[str, str]:
    files: Dict[str, str] = {}
    for type_file in _by_number(board, pattern):
        folder = type_file.rpartition("/")[0]
        name = board.text(type_file) or folder.rpartition("/")[2]
        if not wanted.search(name):
            continue
        if len(files) == _MOST_ENTRIES:
            break
        if name in files:
            name = "{} ({})".format(name, folder.rpartition("/")[2])
        files[name] = folder + "/" + value_file
    return files


def _has_whole_degrees(board: Board, path: str) -> bool:
    # A reading alone does not tell: 95 can be a hot zone or one at freezing.
    trip = board.number(path[: -len("temp")] + "trip_point_0_temp")
    return trip is not None and 0 < trip < _WHOLE_C


def _cpu_clocks(board: Board) -> Dict[str, str]:
    clocks: Dict[str, str] = {}
    for folder in _by_number(board, "/sys/devices/system/cpu/cpufreq/policy*")[:_MOST_ENTRIES]:
        policy = folder.rpartition("/")[2]
        clocks[f"cpu.{policy}.requested"] = folder + "/scaling_cur_freq"
        real = folder + "/cpuinfo_cur_freq"  # what the core runs at; root only
        if board.number(real) is not None:
            clocks[f"cpu.{policy}.real"] = real
    return clocks


def _devfreq_clocks(board: Board) -> Dict[str, str]:
    clocks: Dict[str, str] = {}
    for folder in board.glob("/sys/class/devfreq/*"):
        name = folder.rpartition("/")[2]
        if name.endswith("bw"):  # of a Snapdragon's bus, soc:qcom,gpubw: MB/s
            continue
        for kind, pattern in _UNITS.items():
            if re.search(pattern, name):
                clocks[f"{kind}.{name}"] = folder + "/cur_freq"
                break
    if board.number(_EMC_RATE) is not None:
        clocks["memory.emc"] = _EMC_RATE
    return clocks


def _counter_files(board: Board) -> Dict[str, str]:
    files: Dict[str, str] = {}
    for name_file in board.glob("/sys/class/hwmon/hwmon*/name"):
        if board.text(name_file) == "soctherm_oc":
            for path in board.glob(name_file[: -len("name")] + "oc*_event_cnt"):
                files["soctherm." + path.rpartition("/")[2]] = path
    pattern = "/sys/devices/system/cpu/cpu*/thermal_throttle/package_throttle_count"
    for path in board.glob(pattern)[:1]:
        files["cpu.package_throttle_count"] = path
    return files
