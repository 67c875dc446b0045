import ctypes
import shutil
import subprocess

import pytest
from remote_bench.agent.rails import nvidia_gpus, nvml

COMPILER = shutil.which("cc")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler to make a library with")

# Two GPUs. NVML's functions return 0 for success, 3 for "not supported".
SOURCE = """
static unsigned long long energy_mj = 5000;
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
  *handle = (void *)(long)(index + 1);
  return index < 2 ? 0 : 6;
}
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *mj) {
  *mj = energy_mj += 10 * (long)handle;
  return (long)handle == 1 ? ENERGY_STATUS : LAST_ENERGY_STATUS;
}
int nvmlDeviceGetClockInfo(void *handle, int kind, unsigned *mhz) {
  *mhz = kind == 1 ? 1410 : 0;
  return 0;
}
int nvmlDeviceGetUtilizationRates(void *handle, unsigned rates[2]) {
  rates[0] = 97;
  return 0;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *bits) {
  *bits = 0x1 | 0x4 | 0x20;  // idle, power cap, thermal slowdown
  return (long)handle == 1 ? 0 : 3;
}
int nvmlDeviceGetPowerUsage(void *handle, unsigned *mw) {
  *mw = 1000 * (long)handle;
  return POWER_STATUS;
}
"""


@pytest.fixture
def library(tmp_path):
    def make(energy_status, power_status=0, last_energy_status=None):
        last = energy_status if last_energy_status is None else last_energy_status
        path = tmp_path / f"libnvml{energy_status}{power_status}{last}.so"
        (tmp_path / "nvml.c").write_text(SOURCE)
        flags = [f"-DENERGY_STATUS={energy_status}", f"-DPOWER_STATUS={power_status}",
                 f"-DLAST_ENERGY_STATUS={last}"]  # fmt: skip
        subprocess.run(
            [COMPILER, "-shared", "-fPIC", *flags, "-o", path, tmp_path / "nvml.c"], check=True
        )
        ctypes.CDLL(str(path))  # it loads
        return str(path)

    return make


def test_energy_counter_of_each_gpu_is_read_in_microjoules(library):
    source, _ = nvml(library(energy_status=0))
    assert source.rails == ["nvml-0", "nvml-1"] and source.unit == "uj"
    first, second = source.read(), source.read()
    assert all(later > sooner > 5e6 for sooner, later in zip(first, second, strict=True))


def test_gpu_without_an_energy_counter_gives_its_power(library):
    _, source = nvml(library(energy_status=3))
    assert source.unit == "mw" and source.read() == [1000.0, 2000.0]


@pytest.mark.parametrize("counter_of", [0, 1])
def test_each_of_two_gpus_gives_what_it_has(library, counter_of):
    statuses = {"energy_status": 3 * counter_of, "last_energy_status": 3 - 3 * counter_of}
    counters, powers = nvml(library(**statuses))
    assert counters.rails == [f"nvml-{counter_of}"] and counters.unit == "uj"
    assert powers.rails == [f"nvml-{1 - counter_of}"] and powers.unit == "mw"
    assert counters.read()[0] > 5e6 and powers.read() == [1000.0 * (2 - counter_of)]


def test_clock_load_and_throttling_of_a_gpu_are_read_beside_its_power(library):
    first, second = nvidia_gpus(library(energy_status=0))
    assert (first.mhz(), first.load()) == (1410.0, 0.97)
    assert first.throttled_by() == ["power cap", "thermal slowdown"]
    assert second.throttled_by() == []  # it does not tell


def test_gpu_that_tells_neither_has_no_rail(library):
    assert not any(source.rails for source in nvml(library(energy_status=3, power_status=3)))
