"""Power sensors that are read from files, a tool or a driver, and which of them a board has.

INA3221 and INA238, RAPL, Raspberry Pi's PMIC, NVML. Each source has `name`, `unit` ("mw" or "uj"),
`rails` and `read()`, which returns one reading a rail, None where it could not be had. Energy
counters ("uj") wrap at `wraps_at`.

Documents: kernel Documentation/hwmon/ina3221.rst (in1-3 bus voltages in mV, curr1-3 in mA, no power
file; in4-6 are shunt voltages and in7 their sum), Documentation/power/powercap.
"""

import ctypes
import re
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

from .board import Board

Reading = Optional[float]
_MOST_RAILS = 64  # the most that a Jetson has is 9; more is a broken tree
_NVML = "libnvidia-ml.so.1"
_MOST_GPUS = 16


class InaHwmon:
    """INA sensors of JetPack 5 to 7: voltage and current in hwmon, found by name, not by number."""

    name, unit = "ina_hwmon", "mw"

    def __init__(self, board: Board) -> None:
        self._board = board
        self._files: Dict[str, Tuple[str, str]] = {}
        for name_file in board.glob("/sys/class/hwmon/hwmon*/name"):
            if (board.text(name_file) or "").startswith("ina"):
                self._add_chip(name_file[: -len("/name")])
        self.rails = list(self._files)[:_MOST_RAILS]
        self.wraps_at: List[Reading] = [None] * len(self.rails)

    def _add_chip(self, folder: str) -> None:
        for number in (1, 2, 3):
            current = f"{folder}/curr{number}_input"
            power = f"{folder}/power{number}_input"
            voltage = f"{folder}/in{number}_input"
            label = self._board.text(f"{folder}/in{number}_label")
            if label is None and number == 1:
                label = self._board.text(folder + "/label")  # a one-channel INA238
            if label and self._board.number(current) is not None:
                self._files[_free(self._files, label)] = (voltage, current)
            elif label and self._board.number(power) is not None:
                self._files[_free(self._files, label)] = (power, "")

    def read(self) -> List[Reading]:
        """Return mW a rail; voltage and current are read back to back."""
        return [self._rail_mw(*self._files[rail]) for rail in self.rails]

    def _rail_mw(self, voltage: str, current: str) -> Reading:
        first = self._board.number(voltage)
        if not current:  # the file holds power, in uW
            return None if first is None else first / 1e3
        ma = self._board.number(current)
        return None if first is None or ma is None else first * ma / 1e3


class InaIio:
    """INA3221 of JetPack 4: power in mW by rail."""

    name, unit = "ina_iio", "mw"

    def __init__(self, board: Board) -> None:
        self._board = board
        self._files: Dict[str, str] = {}
        pattern = "/sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_*"
        for name_file in board.glob(pattern):
            folder, _, number = name_file.rpartition("/rail_name_")
            power = f"{folder}/in_power{number}_input"
            label = board.text(name_file)
            if label and board.number(power) is not None:
                self._files[_free(self._files, label)] = power
        self.rails = list(self._files)[:_MOST_RAILS]
        self.wraps_at: List[Reading] = [None] * len(self.rails)

    def read(self) -> List[Reading]:
        """Return mW a rail."""
        return [self._board.number(self._files[rail]) for rail in self.rails]


class Rapl:
    """Energy counters of x86 processors; root only on most systems since CVE-2020-8694."""

    name, unit = "rapl", "uj"

    def __init__(self, board: Board) -> None:
        self._board = board
        folders = [path[: -len("/name")] for path in board.glob("/sys/class/powercap/*/name")]
        readable = [f for f in folders if board.number(f + "/energy_uj") is not None]
        self._files: Dict[str, str] = {}
        for folder in readable:
            label = board.text(folder + "/name") or folder
            # Sub-zones (core, dram) are part of their package: intel-rapl:0:1 names its own.
            self._files[_free(self._files, label)] = folder
        self.rails = list(self._files)[:_MOST_RAILS]
        ranges = [board.number(self._files[r] + "/max_energy_range_uj") for r in self.rails]
        self.wraps_at: List[Reading] = list(ranges)

    def read(self) -> List[Reading]:
        """Return the counters in uJ."""
        return [self._board.number(self._files[rail] + "/energy_uj") for rail in self.rails]


class RaspberryPmic:
    """The Raspberry Pi 5's power chip by `vcgencmd pmic_read_adc`; a process a reading."""

    name, unit = "pmic", "mw"
    # "VDD_CORE_A current(7)=0.64A" of most firmware, "VDD_CORE_A=0.64A" of some.
    _line = re.compile(r"(\S+?)_([AV])(?: \w+\([0-9]+\))?=(-?[0-9.]+)[AV]")

    def __init__(self, board: Board) -> None:
        self._board = board
        is_pi = "raspberry" in (board.text("/proc/device-tree/model") or "").lower()
        self.rails = sorted(self._read_all())[:_MOST_RAILS] if is_pi else []
        self.wraps_at: List[Reading] = [None] * len(self.rails)

    def read(self) -> List[Reading]:
        """Return mW a rail; EXT5V has a voltage and no current, so it is no rail here."""
        powers = self._read_all()
        return [powers.get(rail) for rail in self.rails]

    def _read_all(self) -> Dict[str, float]:
        output = self._board.run(["vcgencmd", "pmic_read_adc"], timeout_s=2).output
        values: Dict[str, Dict[str, float]] = {"A": {}, "V": {}}
        for rail, kind, number in self._line.findall(output):
            try:
                values[kind][rail] = float(number)
            except ValueError:
                continue
        both = set(values["A"]) & set(values["V"])
        return {rail: 1e3 * values["A"][rail] * values["V"][rail] for rail in both}


def _free(taken: Mapping[str, object], label: str) -> str:
    # A label that occurs twice must not overwrite the first one silently.
    name, number = label, 2
    while name in taken:
        name, number = f"{label}#{number}", number + 1
    return name


class Nvml:
    """Energy of desktop NVIDIA GPUs: one rail a GPU, "nvml-0" and so on; none without a driver.

    The energy counter is preferred to the power reading, which is an average over a window of
    unknown length (arXiv 2312.02741). NVML does not survive a fork: open it in the process that
    reads it.
    """

    name = "nvml"

    def __init__(self, library: Optional[str] = None) -> None:
        self.rails: List[str] = []
        self._handles: List[Any] = []
        self.unit = "uj"
        try:
            self._nvml = ctypes.CDLL(library or _NVML)
            ready = self._nvml.nvmlInit_v2() == 0
        except (OSError, AttributeError):
            ready = False
        if ready:
            self._open()
        self.wraps_at: List[Reading] = [None] * len(self.rails)

    def _open(self) -> None:
        for index in range(_MOST_GPUS):
            handle = ctypes.c_void_p()
            if self._nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) != 0:
                break
            self._handles.append(handle)
        if self._handles and self._energy_uj(self._handles[0]) is None:
            self.unit = "mw"  # Pascal and older have no counter
        if self._handles and self._read_one(self._handles[0]) is not None:
            self.rails = [f"nvml-{index}" for index in range(len(self._handles))]

    def read(self) -> List[Reading]:
        """Return uJ (or mW on old GPUs) a GPU."""
        return [self._read_one(handle) for handle in self._handles]

    def _read_one(self, handle: Any) -> Reading:
        return self._energy_uj(handle) if self.unit == "uj" else self._power_mw(handle)

    def _energy_uj(self, handle: Any) -> Reading:
        energy_mj = ctypes.c_ulonglong()
        status = self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(energy_mj))
        return energy_mj.value * 1e3 if status == 0 else None

    def _power_mw(self, handle: Any) -> Reading:
        power_mw = ctypes.c_uint()
        status = self._nvml.nvmlDeviceGetPowerUsage(handle, ctypes.byref(power_mw))
        return float(power_mw.value) if status == 0 else None


Source = Union[InaHwmon, InaIio, Rapl, RaspberryPmic, Nvml]


def ina_sources(board: Board) -> List[Source]:
    """Return the sources that show what tegrastats shows too."""
    found: List[Source] = [InaHwmon(board), InaIio(board)]
    return [source for source in found if source.rails]


def other_sources(board: Board) -> List[Source]:
    """Return the sources that tegrastats does not cover."""
    found: List[Source] = [Rapl(board), RaspberryPmic(board)]
    if board.root == "/":
        found.append(Nvml())
    return [source for source in found if source.rails]
