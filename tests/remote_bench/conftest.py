import json
import os
import shutil
import threading
import time
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
from remote_bench.analysis.result import read_result
from remote_bench.analysis.summary import summarise
from remote_bench.link import payload

from tests.boards.fault_proxy import FaultProxy
from tests.boards.measuring import connect
from tests.boards.ssh_client import SshClient
from tests.boards.sshd import SSHD, Sshd
from tests.boards.stand_ins import faulty_code, make_bundle


@pytest.fixture(autouse=True)
def no_thread_outlives_its_test():
    """Fail the test whose connection still reads, or waits, after it was closed."""
    before = set(threading.enumerate())
    yield
    end = time.monotonic() + 30.0  # a busy machine takes its time for what is called off
    for thread in set(threading.enumerate()) - before:
        thread.join(max(0.0, end - time.monotonic()))
        assert not thread.is_alive(), f"{thread.name} still runs"


@pytest.fixture(scope="session")
def tegrastats_lines():
    """The captured tegrastats lines, without their comments."""
    path = os.environ.get("FASTSEG_TEGRASTATS")
    if not path:
        pytest.skip("FASTSEG_TEGRASTATS is unset: no captured tegrastats lines")
    lines = Path(path).read_text("utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


BOARDS = tomllib.loads(Path(__file__).with_name("boards.toml").read_text("utf-8"))
CPU = "sys/devices/system/cpu/cpufreq/policy0"


class MadeBoard:
    """A file tree that looks like a board, with small scripts for its tools."""

    def __init__(self, root: Path, facts: dict) -> None:
        self.root, self.facts = root, facts
        self._hwmons = 0
        for name, text in facts.get("dmi", {"": ""}).items():
            path = f"sys/class/dmi/id/{name}" if name else "proc/device-tree/model"
            self.write(path, text + "\n" if name else facts.get("model", "") + "\0")
        compatible = "".join(part + "\0" for part in facts.get("compatible", []))
        self.write("proc/device-tree/compatible", compatible)
        self.write("proc/device-tree/serial-number", "1421921123456\0")
        self.write("proc/sys/kernel/random/boot_id", "boot-1\n")
        for name in ("scaling_governor", "scaling_min_freq", "scaling_max_freq"):
            self.write(f"{CPU}/{name}", "schedutil\n" if "gov" in name else "1500000\n")
        self.write(f"{CPU}/scaling_cur_freq", "1500000\n")
        self._write_zones()
        self._write_sensors()
        self._write_tools()

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def tool(self, name: str, script: str) -> Path:
        file = self.write(f"usr/bin/{name}", f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        return file

    def hwmon(self, name: str, rails: dict) -> None:
        folder = f"sys/class/hwmon/hwmon{self._hwmons + 3}"
        self._hwmons += 1
        self.write(f"{folder}/name", name + "\n")
        for number, (label, (mv, ma)) in enumerate(rails.items(), start=1):
            self.write(f"{folder}/in{number}_label", label + "\n")
            self.write(f"{folder}/in{number}_input", f"{mv}\n")
            self.write(f"{folder}/curr{number}_input", f"{ma}\n")

    def _write_zones(self) -> None:
        for number, (zone, millidegrees) in enumerate(self.facts.get("zones", {}).items()):
            self.write(f"sys/class/thermal/thermal_zone{number}/type", zone + "\n")
            self.write(f"sys/class/thermal/thermal_zone{number}/temp", f"{millidegrees}\n")

    def _write_sensors(self) -> None:
        if release := self.facts.get("release"):
            self.write("etc/nv_tegra_release", release + "\n")
            self.hwmon("soctherm_oc", {})
            self.write("sys/class/hwmon/hwmon3/oc1_event_cnt", "0\n")
            self.write("sys/class/hwmon/hwmon3/oc3_event_cnt", "7\n")
            self.write("sys/class/devfreq/17000000.gpu/cur_freq", "305000000\n")
            self.write("sys/class/thermal/cooling_device0/type", "cpu-throttle-alert\n")
            self.write("sys/class/thermal/cooling_device0/cur_state", "0\n")
        for key in ("hwmon", "hwmon2"):
            if key in self.facts:
                self.hwmon("ina3221", self.facts[key])
        if "ina238" in self.facts:
            self.hwmon("ina238", self.facts["ina238"])
        folder = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
        for number, (label, mw) in enumerate(self.facts.get("iio", {}).items()):
            self.write(f"{folder}/rail_name_{number}", label + "\n")
            self.write(f"{folder}/in_power{number}_input", f"{mw}\n")

    def _write_tools(self) -> None:
        if line := self.facts.get("tegrastats"):
            self.tool("tegrastats", f"while :; do echo '{line}'; sleep 0.1; done")
        if modes := self.facts.get("modes"):
            self._write_nvpmodel(modes)
        if pi := self.facts.get("vcgencmd"):
            self.write("adc.txt", pi["adc"])
            self.tool(
                "vcgencmd",
                f'case "$1" in get_throttled) echo throttled={pi["throttled"]};; '
                f"pmic_read_adc) cat {self.root}/adc.txt;; esac",
            )

    def _write_nvpmodel(self, modes: dict) -> None:
        lines = [f"< POWER_MODEL ID={number} NAME={name} >\n" for name, number in modes.items()]
        self.write("etc/nvpmodel.conf", "".join(lines))
        state = self.write("nvpmodel_state", f"{min(modes.values())}\n")
        names = "".join(f"{number}) name={name};; " for name, number in modes.items())
        self.tool(
            "nvpmodel",
            f'if [ "$1" = -m ]; then echo "$2" > {state}; exit; fi\n'
            f"id=$(cat {state}); case $id in {names} esac\n"
            'echo "NV Fan Mode:quiet"; echo "NV Power Mode: $name"; echo "$id"; '
            'echo "NVPM ERROR: Error opening /sys/x: 13" >&2',
        )
        self.tool("sudo", 'shift; exec "$@"')


@pytest.fixture
def made_board(tmp_path):
    """Make the tree of a board of boards.toml; further keys replace its facts."""

    def make(name: str, **facts) -> MadeBoard:
        return MadeBoard(tmp_path / f"root-{name}", {**BOARDS[name], **facts})

    return make


def made_probe(device: str) -> dict:
    facts = BOARDS.get(device, {"model": "PC", "compatible": []})
    return {
        "board": {
            "model": facts["model"],
            "compatible": facts.get("compatible", []),
            "module": None,
            "serial_sha256": None,
        },
        "system": {
            "machine": "aarch64",
            "kernel": "5.15",
            "distribution": None,
            "boot_id": "boot-1",
            "euid": 1000,
        },
        "cpu": {"model": None, "count": 6},
        "memory": {"total_kb": 8000000, "available_kb": 6000000},
        "jetson": {"l4t": "36.4.3", "jetpack": "6.2"},
        "python": {"version": "3.10.12", "modules": {"numpy": "1.26"}},
        "packages": {"libnvinfer10": "10.3.0"},
        "power_mode": {"id": 0, "name": "15W", "fan": None},
        "settings": {"/sys/x": "schedutil"},
        "tools": {"tegrastats": "/usr/bin/tegrastats"},
        "power_sources": [],
        "tegrastats": None,
        "readable": [],
    }


def made_frames(begin: float, seconds: float, latency_ms) -> dict:
    """Frames back to back; latency_ms(t) is what a frame takes that begins t s into the slice."""
    columns: dict[str, list] = {n: [] for n in ("t", "total_ms", "pre_ms", "infer_ms", "post_ms")}
    t = 0.0
    while t < seconds:
        total = latency_ms(t)
        row = (begin + t, total, 0.1 * total, 0.8 * total, 0.1 * total)
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
        t += total / 1e3
    return columns


def _parts(values: list, count: int) -> list[list]:
    edges = [round(number * len(values) / count) for number in range(count + 1)]
    return [values[a:b] for a, b in pairwise(edges)]


@pytest.fixture
def made_result():
    """Make what an agent would have written: idle, a run, idle, with a power of watts(t)."""

    def make(
        device="orin-nano",
        seconds=20.0,
        idle_s=5.0,
        latency_ms=lambda t: 10.0,
        watts=None,
        blocks=1,
        **keys,
    ) -> dict:
        begin, zero = 100.0 + idle_s, 100.0
        end = begin + seconds
        frames = made_frames(begin, seconds, latency_ms)
        watts = watts or (lambda t: 10.0 if begin <= t <= end else 4.0)
        times = [zero + 0.1 * i for i in range(int(10 * (seconds + 2 * idle_s)) + 1)]
        lines = [(t, f"VDD_IN {round(1e3 * watts(t))}mW/1mW VDD_SOC 500mW/500mW") for t in times]
        environment = [
            {"t": t, "celsius": {"tj": 50.0, "cv0": None}, "mhz": {"gpu.x": 612.0}, "alerts": [],
             "available_kb": 5000000, "busy_cpu_s": t,
             "worker": {"pss_kb": 204800, "rss_kb": 1, "peak_rss_kb": 307200, "cpu_s": t}}
            for t in times[::10]
        ]  # fmt: skip
        moment = {"pss_kb": 102400, "rss_kb": 1, "peak_rss_kb": 153600, "available_kb": 5500000}
        cpu = {
            "busy": [0, 20 / blocks],
            "worker": [0, 19 / blocks],
            "supervisor": [0, 0.5 / blocks],
        }
        inventory = {
            "power_mode": {"id": 0, "name": "15W"},
            "settings": {"/sys/x": "schedutil"},
            "processes": [],
        }
        result = {
            "schema": 1,
            "request": {"sampler_hz": 10},
            "probe": made_probe(device),
            "phases": [
                {"name": "idle_before", "begin": zero, "end": begin},
                {"name": "idle_after", "begin": end, "end": end + idle_s},
            ],
            "frames": {"flat_out": frames},
            "slices": [
                {"name": "flat_out", "begin": t[0], "end": later[0], "fps": None, "late": 0,
                 "frames": len(t), "cpu_s": cpu}
                for t, later in pairwise([*_parts(frames["t"], blocks), [end]])
            ],
            "memory": {"imported": moment},
            "error": None,
            "samples": {
                "power": [],
                "environment": environment,
                "tegrastats": {"lines": lines, "events": [], "dropped": 0, "failure": ""},
            },
            "accuracy": {"images": 2, "agreement": 0.99, "miou": None, "labelled": 0},
            "counters_before": {"soctherm.oc3_event_cnt": 7},
            "counters_after": {"soctherm.oc3_event_cnt": 7},
            "power_mode_before": {"id": 0, "name": "15W"},
            "power_mode_after": {"id": 0, "name": "15W"},
            "inventory_before": inventory,
            "inventory_after": inventory,
            "boot_id_after": "boot-1",
            "clock": {
                "begin": {"wall_s": 1e9, "monotonic_s": zero},
                "end": {"wall_s": 1e9 + 30, "monotonic_s": zero + 30},
            },
        }  # fmt: skip
        return {**result, **keys}

    return make


@pytest.fixture
def report_of():
    """Make the report of what came over the wire."""
    return lambda raw, **context: summarise(read_result(json.dumps(raw)), **context)


@pytest.fixture
def faults(monkeypatch):
    """Send a runtime with faults; stub_runtime.py describes them."""

    def send(**faults):
        code = faulty_code(faults)
        monkeypatch.setattr(payload, "code_zip", lambda: code)

    return send


@pytest.fixture
def bundle(tmp_path):
    """A bundle with a network of one operator."""
    return make_bundle(tmp_path / "street.fastseg")


@pytest.fixture
def start_sshd(tmp_path):
    """Start sshd servers that end with the test."""
    if SSHD is None:
        pytest.skip("no sshd here: apt-get install openssh-server")
    servers: list[Sshd] = []

    def start(**options) -> Sshd:
        servers.append(Sshd(tmp_path / f"sshd-{len(servers)}", **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def sshd(start_sshd):
    """One sshd."""
    return start_sshd()


@pytest.fixture
def ssh_client(tmp_path, monkeypatch):
    """A ~/.ssh/config of the test's own, and no agent."""
    if not shutil.which("ssh"):
        pytest.skip("no ssh here: apt-get install openssh-client")
    return SshClient(tmp_path / "client", monkeypatch)


@pytest.fixture
def within(record_property):
    """Hold the time since a moment to a bound, and keep it: pytest --junitxml has them all."""

    def check(name: str, bound_s: float, since: float) -> None:
        took_s = time.monotonic() - since
        record_property(name, round(took_s, 2))
        assert took_s < bound_s

    return check


@pytest.fixture
def proxy(sshd):
    proxy = FaultProxy(sshd.port)
    sshd.approve(sshd.port, proxy.port)
    yield proxy
    proxy.close()


@pytest.fixture
def host(sshd, proxy, ssh_client):
    host = connect(ssh_client.add("board", sshd, port=proxy.port))
    yield host
    host.close()
