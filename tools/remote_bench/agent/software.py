"""What is installed on the board, read without importing any of it: Python, packages, JetPack.

/etc/nv_tegra_release holds no JetPack number, so there is a table. It follows NVIDIA's release
notes; the last of each line is checked against jetson_stats' NVIDIA_JETPACK.
"""

import glob
import importlib.util
import os
import platform
import re
import sys
import sysconfig
from typing import Any, Dict, List, Optional, Sequence

from .board import Board

# What is looked for beside engines: import name -> how its .dist-info or .egg-info folder begins.
_MODULES = {"numpy": "numpy", "cv2": "opencv"}
_PACKAGES = ("libnvinfer[0-9]*", "tensorrt", "nvidia-jetpack", "nvidia-l4t-core", "cuda-toolkit-*")
JETPACK_BY_L4T = {
    "28.1": "3.1", "28.2": "3.2", "28.2.1": "3.3", "28.3.2": "3.3.2", "28.4": "3.3.3",
    "32.1": "4.2", "32.2": "4.2.1", "32.2.1": "4.2.2", "32.3.1": "4.3", "32.4.2": "4.4-DP",
    "32.4.3": "4.4", "32.4.4": "4.4.1", "32.5": "4.5", "32.5.1": "4.5.1", "32.5.2": "4.5.1",
    "32.6.1": "4.6", "32.7.1": "4.6.1", "32.7.2": "4.6.2", "32.7.3": "4.6.3", "32.7.4": "4.6.4",
    "32.7.5": "4.6.5", "32.7.6": "4.6.6",
    "34.1": "5.0-DP", "34.1.1": "5.0.1-DP", "35.1": "5.0.2", "35.2.1": "5.1", "35.3.1": "5.1.1",
    "35.4.1": "5.1.2", "35.5.0": "5.1.3", "35.6.0": "5.1.4", "35.6.1": "5.1.5",
    "35.6.2": "5.1.5", "35.6.4": "5.1.6",
    "36.2": "6.0-DP", "36.3": "6.0", "36.4": "6.1", "36.4.2": "6.1", "36.4.3": "6.2",
    "36.4.4": "6.2.1", "36.5.0": "6.2.2",
    "38.2": "7.0", "38.4.0": "7.1", "39.2.0": "7.2",
}  # fmt: skip
_RELEASE = re.compile(r"R([0-9]+) \(release\), REVISION: ([0-9.]+)")
_PACKAGE = re.compile(r"([0-9]+\.[0-9]+(?:\.[0-9]+)?)")
_VERSION = re.compile(r"[0-9]+(?:\.[0-9]+)+")


def read_python(engines: Sequence[str]) -> Dict[str, Any]:
    """Return what a wheel must fit: version, implementation, platform, C library; and modules.

    Args:
        engines: import names of engines' libraries.
    """
    libc = " ".join(part for part in platform.libc_ver() if part)
    return {
        "version": ".".join(str(part) for part in sys.version_info[:3]),
        "implementation": platform.python_implementation(),
        "executable": sys.executable,
        "platform": sysconfig.get_platform(),
        "libc": libc or None,
        "modules": {name: module_version(name) for name in (*_MODULES, *engines)},
    }


def module_version(name: str) -> Optional[str]:
    """Return a module's version, "unknown" where it hides it, None where it is not there."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin:
        return None
    site = os.path.dirname(os.path.dirname(spec.origin))
    folders = glob.glob(os.path.join(glob.escape(site), _MODULES.get(name, name) + "*-info"))
    for folder in sorted(folders):
        found = _VERSION.search(os.path.basename(folder))
        if found:
            return found.group(0)
    return "unknown"


def read_packages(board: Board) -> Dict[str, str]:
    """Return the versions of NVIDIA's Debian packages, and of CUDA from its own file."""
    versions = _installed(board, *_PACKAGES)
    for path in ("/usr/local/cuda/version.json", "/usr/local/cuda/version.txt"):
        text = board.text(path) or ""
        found = re.search(r'"cuda"[^}]*?"version"\s*:\s*"([0-9.]+)"', text) or re.search(
            r"CUDA Version ([0-9.]+)", text
        )
        if found:
            versions["cuda"] = found.group(1)
            break
    return versions


def _installed(board: Board, *packages: str) -> Dict[str, str]:
    """Return the versions of packages; one that was removed and left its settings is not there."""
    form = "${Package}\t${Version}\t${db:Status-Abbrev}\n"
    command: List[str] = ["dpkg-query", "-W", "-f", form, *packages]
    rows = [line.split("\t") for line in board.run(command).output.splitlines() if "\t" in line]
    # The second letter is the state; a dpkg that does not know the field leaves it out.
    return {row[0]: row[1] for row in rows if row[1] and "".join(row[2:])[1:2] in ("i", "")}


def read_l4t(board: Board) -> Optional[Dict[str, Any]]:
    """Return {"l4t", "jetpack", "jetpack_by", "source"}; None on a board that is no Jetson."""
    found = _RELEASE.search(board.text("/etc/nv_tegra_release") or "")
    packages = _installed(board, "nvidia-l4t-core", "nvidia-jetpack")
    if found:
        l4t, source = f"{found.group(1)}.{found.group(2)}", "/etc/nv_tegra_release"
    else:
        package = _PACKAGE.search(packages.get("nvidia-l4t-core", ""))
        if not package:
            return None
        l4t, source = package.group(1), "package nvidia-l4t-core"
    nearest = nearest_l4t(l4t)
    same = nearest and _numbers(nearest) == _numbers(l4t)
    jetpack, by = jetpack_of(l4t), f"L4T {nearest}" if same else f"nearest L4T, {nearest}"
    named = packages.get("nvidia-jetpack", "")
    if _VERSION.match(named):
        jetpack, by = re.split("[+-]", named)[0], "package nvidia-jetpack"
    facts = {"l4t": l4t, "jetpack": jetpack, "source": source}
    return dict(facts, jetpack_by=by if jetpack else None)


def jetpack_of(l4t: str) -> Optional[str]:
    """Return the JetPack of an L4T release or of the nearest; None where the table has none."""
    return JETPACK_BY_L4T.get(nearest_l4t(l4t) or "")


def nearest_l4t(l4t: str) -> Optional[str]:
    """Return the release itself, or the nearest older one of its line in the table.

    A board gets newer ones by apt than any JetPack had.
    """
    numbers = _numbers(l4t)
    older = [name for name in JETPACK_BY_L4T if numbers[:1] <= _numbers(name) <= numbers]
    return max(older, key=_numbers, default=None)


def _numbers(l4t: str) -> List[int]:
    numbers = [int(part) for part in l4t.split(".") if part]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return numbers
