"""Power sensors that are read from files, a tool or a driver, and which of them a board has.

Documents: kernel Documentation/hwmon/ina3221.rst (in1-3 bus voltages in mV, curr1-3 in mA, no power
file; in4-6 are shunt voltages and in7 their sum), Documentation/power/powercap.
"""

import ctypes
import os
import re
from functools import partial
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional

from .board import Board

Reading = Optional[float]
_MOST_RAILS = 64  # the most that a Jetson has is 9; more is a broken tree
_MOST_GPUS = 16  # as many as a server has
# "VDD_CORE_A current(7)=0.64A" of most firmware, "VDD_CORE_A=0.64A" of some.
_PMIC_LINE = re.compile(r"(\S+?)_([AV])(?: \w+\([0-9]+\))?=(-?[0-9.]+)[AV]")


# nvml.h: nvmlClocksThrottleReason...
_NVML_THROTTLES = {0x4: "power cap", 0x8: "hardware slowdown", 0x20: "thermal slowdown",
                   0x40: "hardware thermal slowdown", 0x80: "power brake"}  # fmt: skip


class Source(NamedTuple):
    """Rails that are read together."""

    name: str
    unit: str  # "mw", or "uj": a counter
    rails: List[str]
    read: Callable[[], List[Reading]]  # one a rail, None where it could not be had
    wraps_at: List[Reading]  # of each rail's counter


def power_sources(board: Board) -> List[Source]:
    """Return the sources that a board has; tegrastats shows the INA sensors too."""
    found = [ina_hwmon(board), ina_iio(board), rapl(board), raspberry_pmic(board)]
    if board.root == "/":
        found += nvml()
    return [source for source in found if source.rails]


def ina_hwmon(board: Board) -> Source:
    """INA sensors: voltage and current in hwmon, found by name, not by number.

    JetPack 5 to 7 labels each rail. Where a device tree has no label, the rail is called by chip,
    bus address and channel: ina226.1-0040.1.
    """
    readers: Dict[str, Callable[[], Reading]] = {}
    for name_file in board.glob("/sys/class/hwmon/hwmon*/name"):
        folder, chip = name_file[: -len("/name")], board.text(name_file) or ""
        address = os.path.basename(os.path.realpath(board.path(folder + "/device")))
        for number in (1, 2, 3) if chip.startswith("ina") else ():
            label = board.text(f"{folder}/in{number}_label")
            if label is None and number == 1:
                label = board.text(folder + "/label")  # a one-channel INA238
            read = _ina_channel(board, folder, number)
            if read is not None:
                readers[_free(readers, label or f"{chip}.{address}.{number}")] = read
    return _source("ina_hwmon", "mw", readers)


def _ina_channel(board: Board, folder: str, number: int) -> Optional[Callable[[], Reading]]:
    current, power = f"{folder}/curr{number}_input", f"{folder}/power{number}_input"
    if board.number(current) is not None:
        return partial(_ina_mw, board, f"{folder}/in{number}_input", current)
    return partial(_from_uw, board, power) if board.number(power) is not None else None


def _ina_mw(board: Board, voltage: str, current: str) -> Reading:
    mv, ma = board.number(voltage), board.number(current)  # read back to back
    return None if mv is None or ma is None else mv * ma / 1e3


def _from_uw(board: Board, power: str) -> Reading:
    uw = board.number(power)
    return None if uw is None else uw / 1e3


def ina_iio(board: Board) -> Source:
    """INA3221 of JetPack 4: power in mW by rail."""
    readers: Dict[str, Callable[[], Reading]] = {}
    for name_file in board.glob("/sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_*"):
        folder, _, number = name_file.rpartition("/rail_name_")
        power, label = f"{folder}/in_power{number}_input", board.text(name_file)
        if label and board.number(power) is not None:
            readers[_free(readers, label)] = partial(board.number, power)
    return _source("ina_iio", "mw", readers)


def rapl(board: Board) -> Source:
    """Energy counters of x86 processors; root only on most systems since CVE-2020-8694.

    Linux shows a package of some processors twice, by its register and by memory (intel-rapl-mmio).
    """
    readers: Dict[str, Callable[[], Reading]] = {}
    wraps_at: Dict[str, Reading] = {}
    folders = [file[: -len("/name")] for file in board.glob("/sys/class/powercap/*/name")]
    for folder in sorted(folders, key=_is_mmio):
        name_file = folder + "/name"
        is_again = _is_mmio(folder) and board.text(name_file) in readers
        if board.number(folder + "/energy_uj") is not None and not is_again:
            # Sub-zones (core, dram) are part of their package: intel-rapl:0:1 names its own.
            rail = _free(readers, board.text(name_file) or folder)
            readers[rail] = partial(board.number, folder + "/energy_uj")
            wraps_at[rail] = board.number(folder + "/max_energy_range_uj")
    return _source("rapl", "uj", readers, wraps_at)


def _is_mmio(folder: str) -> bool:
    return os.path.basename(folder).startswith("intel-rapl-mmio")


def raspberry_pmic(board: Board) -> Source:
    """The Raspberry Pi 5's power chip by `vcgencmd pmic_read_adc`; a process a reading."""
    is_pi = "raspberry" in (board.text("/proc/device-tree/model") or "").lower()
    rails = sorted(_pmic_mw(board))[:_MOST_RAILS] if is_pi else []

    def read() -> List[Reading]:
        powers_mw = _pmic_mw(board)
        return [powers_mw.get(rail) for rail in rails]

    return Source("pmic", "mw", rails, read, [None] * len(rails))


def _pmic_mw(board: Board) -> Dict[str, float]:
    # EXT5V has a voltage and no current, so it is no rail here.
    output = board.run(["vcgencmd", "pmic_read_adc"], timeout_s=2).output
    values: Dict[str, Dict[str, float]] = {"A": {}, "V": {}}
    for rail, kind, number in _PMIC_LINE.findall(output):
        try:
            values[kind][rail] = float(number)
        except ValueError:
            continue
    both = set(values["A"]) & set(values["V"])
    return {rail: 1e3 * values["A"][rail] * values["V"][rail] for rail in both}


def nvml(library: str = "libnvidia-ml.so.1") -> List[Source]:
    """Energy of desktop NVIDIA GPUs: one rail a GPU, "nvml-0" and so on; none without a driver.

    The energy counter is preferred to the power reading, which is an average over a window of
    unknown length (arXiv 2312.02741): Pascal has no other. NVML does not survive a fork: open it in
    the process that reads it.
    """
    counters: Dict[str, Callable[[], Reading]] = {}
    powers: Dict[str, Callable[[], Reading]] = {}
    for number, gpu in enumerate(nvidia_gpus(library)):
        if gpu.energy_uj() is not None:
            counters[f"nvml-{number}"] = gpu.energy_uj
        elif gpu.power_mw() is not None:
            powers[f"nvml-{number}"] = gpu.power_mw
    return [_source("nvml", "uj", counters), _source("nvml", "mw", powers)]


class NvidiaGpu:
    """A desktop GPU as NVML shows it; None where it does not tell."""

    def __init__(self, driver: Any, handle: Any) -> None:
        self._driver, self._handle = driver, handle

    def energy_uj(self) -> Reading:
        """Return the energy counter."""
        energy_mj = self._ask("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong)
        return None if energy_mj is None else energy_mj * 1e3

    def power_mw(self) -> Reading:
        """Return the power, averaged by the driver."""
        power_mw = self._ask("nvmlDeviceGetPowerUsage", ctypes.c_uint)
        return None if power_mw is None else float(power_mw)

    def mhz(self) -> Reading:
        """Return the clock of the multiprocessors."""
        mhz = self._ask("nvmlDeviceGetClockInfo", ctypes.c_uint, 1)
        return None if mhz is None else float(mhz)

    def load(self) -> Reading:
        """Return the share of the last moments in which something ran on it."""
        rates = self._ask("nvmlDeviceGetUtilizationRates", ctypes.c_uint * 2)
        return None if rates is None else rates[0] / 100

    def throttled_by(self) -> List[str]:
        """Return what holds its clock down now, but for being idle and its user's own limits."""
        bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong) or 0
        return [name for bit, name in _NVML_THROTTLES.items() if bits & bit]

    def _ask(self, function: str, form: Any, *arguments: int) -> Any:
        value = form()
        call = getattr(self._driver, function, None)
        if call is None or call(self._handle, *arguments, ctypes.byref(value)) != 0:
            return None
        return getattr(value, "value", value)


def nvidia_gpus(library: str = "libnvidia-ml.so.1") -> List[NvidiaGpu]:
    """Return the desktop GPUs; none without a driver."""
    try:
        driver = ctypes.CDLL(library)
        if driver.nvmlInit_v2() != 0:
            return []
    except (OSError, AttributeError):
        return []
    gpus: List[NvidiaGpu] = []
    for index in range(_MOST_GPUS):
        handle = ctypes.c_void_p()
        if driver.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) != 0:
            break
        gpus.append(NvidiaGpu(driver, handle))
    return gpus


def _source(
    name: str,
    unit: str,
    readers: Mapping[str, Callable[[], Reading]],
    wraps_at: Optional[Mapping[str, Reading]] = None,
) -> Source:
    rails = list(readers)[:_MOST_RAILS]
    ends = [(wraps_at or {}).get(rail) for rail in rails]
    return Source(name, unit, rails, lambda: [readers[rail]() for rail in rails], ends)


def _free(taken: Mapping[str, object], label: str) -> str:
    # A label that occurs twice must not overwrite the first one silently.
    name, number = label, 2
    while name in taken:
        name, number = f"{label}#{number}", number + 1
    return name
