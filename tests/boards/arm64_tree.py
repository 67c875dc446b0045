"""A bare arm64 Debian tree whose programs run here through qemu: the nearest thing to a board.

Packages are fetched with an apt state of their own and unpacked without running any of their
scripts, so the machine is left as it was. The tree is entered by chroot, because the host's
/sys, which describes an x86 CPU, makes arm64 programs crash.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

QEMU = "qemu-aarch64-static"
NEEDED = (QEMU, "apt-get", "dpkg", "chroot", "unshare")
PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6", "libgomp1")
PYTHON_VERSION = "3.11"  # of Debian 12
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
SITE = "opt/site"


def why_not() -> str:
    """Why no tree can be made here; empty if one can."""
    missing = [program for program in NEEDED if shutil.which(program) is None]
    if missing:
        return f"needs {', '.join(missing)} (Debian: apt-get install qemu-user-static)"
    release = Path("/etc/debian_version")
    if not release.exists() or not release.read_text().startswith("12"):
        return "fetches its packages with apt, from Debian 12"
    if os.geteuid() and subprocess.run(["unshare", "-r", "true"], check=False).returncode:
        return "needs root or user namespaces to enter the tree"
    return ""


class Arm64Tree:
    """The tree under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        _unpack(root, PACKAGES)
        for name in ("tmp", "proc", "dev", SITE):
            (root / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(str(shutil.which(QEMU)), root / QEMU)

    def install(self, *requirements: str, offline: Path | None = None) -> None:
        """Install aarch64 wheels with the host's pip.

        Args:
            requirements: as pip takes them.
            offline: take wheels from this folder alone.
        """
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "--upgrade", "--target", str(self.root / SITE)]
        command += _for_arm64()
        if offline is not None:
            command += ["--no-index", "--find-links", str(offline)]
        # pip also warns of conflicts with the host's own packages, which do not matter here.
        subprocess.run([*command, *requirements], check=True, stderr=subprocess.PIPE)

    def python(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run the tree's Python; paths are those inside the tree."""
        enter = ["chroot"] if os.geteuid() == 0 else ["unshare", "-r", "chroot"]
        qemu = [f"/{QEMU}", "-E", f"PYTHONPATH=/{SITE}", "/usr/bin/python3"]
        command = [*enter, str(self.root), *qemu, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def download(folder: Path, *requirements: str) -> None:
    """Fetch aarch64 wheels into a folder."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(folder), *_for_arm64()]
    subprocess.run([*command, *requirements], check=True, stderr=subprocess.PIPE)


def _for_arm64() -> list[str]:
    platforms = [f"--platform={name}_aarch64" for name in PLATFORMS]
    return [*platforms, f"--python-version={PYTHON_VERSION}", "--implementation=cp"]


def _unpack(root: Path, packages: Sequence[str]) -> None:
    state = root.with_name(f"{root.name}.apt")
    for folder in (root, state / "lists/partial", state / "cache/archives/partial"):
        folder.mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Sandbox::User": "",
        "Dir::State": state,
        "Dir::State::lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "Debug::NoLocking": "1",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    subprocess.run([*apt, "update"], check=True, capture_output=True)
    subprocess.run(
        [*apt, "install", "--yes", "--no-install-recommends", "--download-only", *packages],
        check=True,
        capture_output=True,
    )
    for package in sorted((state / "cache/archives").glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
    shutil.rmtree(state)
