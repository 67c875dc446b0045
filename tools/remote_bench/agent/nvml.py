"""Energy of desktop NVIDIA GPUs by NVML, through ctypes.

The energy counter is preferred to the power reading, which is an average over a window of unknown
length (arXiv 2312.02741). NVML does not survive a fork: open it in the process that reads it.
"""

import ctypes
from typing import Any, List, Optional

from .rails import Reading

_LIBRARY = "libnvidia-ml.so.1"
_MOST_GPUS = 16


class Nvml:
    """One rail a GPU, "nvml-0" and so on; none where there is no NVIDIA driver."""

    name = "nvml"

    def __init__(self, library: Optional[str] = None) -> None:
        self.rails: List[str] = []
        self._handles: List[Any] = []
        self.unit = "uj"
        try:
            self._nvml = ctypes.CDLL(library or _LIBRARY)
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
