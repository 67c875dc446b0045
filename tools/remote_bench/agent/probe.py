"""A read-only fingerprint of the board, and what can be measured on it with and without root."""

import hashlib
import os
import platform
import re
import socket
import time
from typing import Any, Dict, List, Optional, Sequence

from . import VERSION
from .board import Board, Outcome
from .environment import Environment
from .process import memory_kb, processes
from .rails import power_sources
from .settings import mode_ids, read_power_mode, read_settings
from .software import read_l4t, read_packages, read_python
from .tegrastats_feed import first_line

_TOOLS = ("tegrastats", "nvpmodel", "jetson_clocks", "vcgencmd", "sudo", "nvidia-smi", "trtexec")
_DMI = ("sys_vendor", "product_name", "board_name")
# Display servers and compositors, by the 15 letters of their names that the kernel keeps.
_DESKTOPS = {"Xorg", "X", "Xwayland", "gnome-shell", "kwin_wayland", "kwin_x11", "weston", "sway",
             "labwc", "wayfire", "mutter", "cinnamon", "xfwm4", "lxqt-panel"}  # fmt: skip
_BUSES = (("pci", "vendor", "device"), ("usb", "idVendor", "idProduct"))
_MOST_ATTACHED = 256  # of a bus; a server has a hundred


def probe(board: Board, engines: Sequence[str] = ()) -> Dict[str, Any]:
    """Return the fingerprint; every value that cannot be had is None.

    Args:
        board: to look at.
        engines: import names of the engines' libraries to look for.
    """
    sources = power_sources(board)
    environment = Environment(board)
    data: Dict[str, Any] = {
        "schema": VERSION,
        "board": read_board(board),
        "system": _system(board),
        "memory": _memory(board),
        "jetson": read_l4t(board),
        "python": read_python(engines),
        "packages": read_packages(board),
        **probe_mode(board),
        "power_modes": mode_ids(board),
        "environment": environment.read(),
        "counters": environment.counters(),
        "throttling": environment.throttle_sources(),
        "power_sources": [{"name": s.name, "unit": s.unit, "rails": s.rails} for s in sources],
        "tegrastats": first_line(board),
        "tools": {name: board.tool(name) for name in _TOOLS},
        "desktop": sorted({name for name, _ in processes().values()} & _DESKTOPS),
        "sudo": board.run(["sudo", "-n", "true"], timeout_s=5).status == 0,
    }
    vcgencmd = board.run(["vcgencmd", "get_throttled"], 2) if board.tool("vcgencmd") else None
    data["readable"] = readable(data, vcgencmd)
    return data


def probe_mode(board: Board) -> Dict[str, Any]:
    """Return what a change of the power mode changes: it also switches cores on and off."""
    return {
        "power_mode": read_power_mode(board),
        "settings": read_settings(board),
        "cpu": _cpu(board),
    }


def read_board(board: Board) -> Dict[str, Any]:
    """Return model, compatible, module part number and hashed serial number."""
    compatible = board.texts("/proc/device-tree/compatible")
    compatible = compatible or board.texts("/sys/firmware/devicetree/base/compatible")
    model = board.text("/proc/device-tree/model") or board.text(
        "/sys/firmware/devicetree/base/model"
    )
    part = re.search(r"p[0-9]{4}-[0-9]{4}(?!.*p[0-9]{4}-)", " ".join(compatible))
    serial = board.text("/proc/device-tree/serial-number")
    dmi = [board.text(f"/sys/class/dmi/id/{name}") for name in _DMI]
    chassis = board.number("/sys/class/dmi/id/chassis_type")
    return {
        "model": model or board.text("/sys/class/dmi/id/product_name"),
        "compatible": compatible,
        "module": part.group(0) if part else None,
        "serial_sha256": hashlib.sha256(serial.encode()).hexdigest() if serial else None,
        "dmi": [text for text in dmi if text] + ([f"chassis {chassis}"] if chassis else []),
        "attached": _attached(board),
    }


def _attached(board: Board) -> List[str]:
    """Return what is on the buses, such as "pci:1e60:2864"."""
    found = set()
    for bus, vendor, product in _BUSES:
        for path in board.glob(f"/sys/bus/{bus}/devices/*/{vendor}")[:_MOST_ATTACHED]:
            ids = [board.text(path), board.text(path[: -len(vendor)] + product)]
            found.add(":".join([bus, *((text or "").replace("0x", "") for text in ids)]))
    return sorted(found)


def _system(board: Board) -> Dict[str, Any]:
    release = re.search(r'^PRETTY_NAME="?([^"\n]*)', board.text("/etc/os-release") or "", re.M)
    return {
        "hostname": socket.gethostname(),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "boot_id": boot_id(board),
        "distribution": release.group(1) if release else None,
        "euid": os.geteuid(),
        "wall_time_s": time.time(),
        "monotonic_s": time.monotonic(),
    }


def boot_id(board: Board) -> Optional[str]:
    """Return the kernel's id of this boot."""
    return board.text("/proc/sys/kernel/random/boot_id")


def _cpu(board: Board) -> Dict[str, Any]:
    text = board.text("/proc/cpuinfo") or ""
    model = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.M)
    features = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.M)
    return {
        "model": model.group(1) if model else None,
        "count": os.cpu_count(),
        "features": features.group(1).split() if features else [],
        "policies": _policies(board),
    }


def _policies(board: Board) -> Dict[str, List[int]]:
    """Return the cores of each policy of cpufreq: on a TX2, 0 has 0, 3, 4, 5 and 1 has 1, 2."""
    files = board.glob("/sys/devices/system/cpu/cpufreq/policy*/related_cpus")
    cores = {path.split("policy")[1].split("/")[0]: board.text(path) or "" for path in files}
    return {name: [int(core) for core in re.findall("[0-9]+", cores[name])] for name in cores}


def _memory(board: Board) -> Dict[str, Optional[int]]:
    text = board.text("/proc/meminfo") or ""
    numbers = {n: int(kb) for n, kb in re.findall(r"^(\w+):\s+([0-9]+) kB", text, re.M)}
    names = {"total_kb": "MemTotal", "available_kb": "MemAvailable", "swap_kb": "SwapTotal"}
    return {key: numbers.get(name) for key, name in names.items()}


def readable(data: Dict[str, Any], vcgencmd: Optional[Outcome] = None) -> List[Dict[str, Any]]:
    """Return what can be measured: [{"what", "ok", "detail", "fix"}]; fix is "" where it is ok.

    Args:
        data: a probe.
        vcgencmd: what it answered for the throttle bits, on a Raspberry Pi.
    """
    clocks, root = data["environment"]["mhz"], data["system"]["euid"] == 0
    as_root = "" if root else "connect as root, or allow sudo without a password"
    rails = [rail for source in data["power_sources"] for rail in source["rails"]]
    line = data["tegrastats"] or ""
    modules = data["python"]["modules"]
    engines = [n for n in modules if n not in ("numpy", "cv2") and modules[n]]
    is_jetson = data["jetson"] is not None
    rows = [
        ("power rails", rails or re.search(r" -?[0-9]+(mW)?/-?[0-9]+(mW)? ?", line), as_root),
        ("temperatures", data["environment"]["celsius"], ""),
        ("throttling", data["throttling"], _for_throttling(vcgencmd, as_root if is_jetson else "")),
        ("CPU clock", [n for n in clocks if n.startswith("cpu.")], ""),
        ("GPU clock", [n for n in clocks if n.startswith("gpu.")], ""),
        ("memory and NPU clock", [n for n in clocks if n.startswith(("memory.", "npu."))], as_root),
        ("real CPU clock", [n for n in clocks if n.endswith(".real")], as_root),
        ("process memory (PSS)", memory_kb(os.getpid())["pss_kb"], "Linux 4.14 or newer"),
        ("numpy", modules["numpy"], "remote_bench brings a wheel"),
        (
            "no desktop",
            not data["desktop"],
            f"{', '.join(data['desktop'])}: sudo systemctl isolate multi-user.target",
        ),
        ("an inference engine", engines, "remote_bench brings a wheel; TensorRT is JetPack's"),
    ]
    if is_jetson:
        counters = [n for n in data["counters"] if n.startswith("soctherm.")]
        change = root or data["sudo"]
        load = data["environment"]["gpu_load"] is not None or re.search(r"GR3D\w* [0-9]+%", line)
        rows.append(("GPU load", bool(load), "its tegrastats prints none: JetPack 7 has no other"))
        rows.append(("power mode", data["power_mode"], "install nvidia-l4t-nvpmodel"))
        rows.append(("change of the power mode", change, as_root))
        rows.append(("over-current counters", counters, as_root))
    return [
        {"what": what, "ok": bool(found), "detail": _detail(found), "fix": "" if found else fix}
        for what, found, fix in rows
    ]


def _for_throttling(vcgencmd: Optional[Outcome], otherwise: str) -> str:
    if vcgencmd is None or vcgencmd.status == 0:
        return otherwise
    said = (vcgencmd.errors or vcgencmd.output).strip().split("\n")[0][:200]
    return f"sudo usermod -aG video $USER, and log in anew: vcgencmd says {said or 'nothing'}"


def _detail(found: Any) -> str:
    if isinstance(found, (list, dict)):
        return ", ".join(str(name) for name in found)[:300]
    return found if isinstance(found, str) else ""
