"""An emulated arm64 board: Debian's own arm64 packages behind a real arm64 sshd.

It has python3 and nothing else: no numpy, no engine. It lives in network, mount and process
namespaces of its own, so that everything on it ends with it. Its /sys is a made tree, for the
host's x86 one makes arm64 CPU readers crash, and a board's sensors can be put there.
Needs root, qemu-user-static, binfmt-support, iproute2 and Debian's package mirror.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PACKAGES = [
    "python3-minimal",
    "libpython3-stdlib",
    "libstdc++6",
    "libgomp1",
    "bash",
    "dash",
    "coreutils",
    "util-linux",
    "procps",
    "grep",
    "sed",
    "gawk",
    "findutils",
    "tar",
    "gzip",
    "hostname",
    "libc-bin",
    "login",
    "passwd",
    "openssh-sftp-server",
    "openssh-server",
]
TOOLS = ("ip", "unshare", "chroot", "qemu-aarch64-static", "update-binfmts", "dpkg", "apt-get")
ADDRESS, HOST_ADDRESS = "10.77.13.2", "10.77.13.1"
_USERS = {
    "passwd": "root:x:0:0:root:/root:/bin/bash\nsshd:x:105:65534::/run/sshd:/usr/sbin/nologin\n"
    "jetson:x:1000:1000:jetson:/home/jetson:/bin/bash\n",
    "group": "root:x:0:\njetson:x:1000:\n",
    "shadow": "root:*:19000:0:99999:7:::\njetson:*:19000:0:99999:7:::\n",
}
_SSHD = f"""Port 22
ListenAddress {ADDRESS}
HostKey /etc/ssh/host_key
UsePAM no
PasswordAuthentication no
PidFile none
"""
_BINFMT = Path("/proc/sys/fs/binfmt_misc")


def missing() -> str:
    """Return why there can be no such board here, "" if there can."""
    path = f"{os.environ.get('PATH')}:/usr/sbin:/sbin"
    absent = [tool for tool in TOOLS if not shutil.which(tool, path=path)]
    if absent:
        return f"not here: {', '.join(absent)}"
    return "" if os.geteuid() == 0 else "namespaces and chroot need root"


class Arm64Board:
    """Up from construction to stop(). Login as jetson with `client_key`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "root"
        self.client_key, self.known_hosts = folder / "client_key", folder / "known_hosts"
        self.port = 22
        folder.mkdir(exist_ok=True)
        _register_qemu()
        if not (self.root / "usr/bin/python3").exists():
            _unpack_packages(self.root)
        self._make_users_and_keys()
        self._make_sys()
        self._start()

    def write(self, path: str, text: str) -> None:
        """Write a file of the board."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def _make_users_and_keys(self) -> None:
        for name in ("proc", "dev", "sys", "run/sshd", "var/tmp", "tmp", "home/jetson/.ssh"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        for name in ("tmp", "var/tmp"):
            (self.root / name).chmod(0o1777)
        for name, text in _USERS.items():
            self.write(f"etc/{name}", text)
        self.write("etc/ssh/board_config", _SSHD)
        for key in (self.client_key, self.root / "etc/ssh/host_key"):
            if not key.exists():
                _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
        home = self.root / "home/jetson"
        shutil.copy(f"{self.client_key}.pub", home / ".ssh/authorized_keys")
        _run("chown", "-R", "1000:1000", home)
        _run("chmod", "-R", "go-rwx", home)
        key = (self.root / "etc/ssh/host_key.pub").read_text().split()[:2]
        self.known_hosts.write_text(f"{ADDRESS} {' '.join(key)}\n")

    def _make_sys(self) -> None:
        model = "NVIDIA Jetson Orin Nano Developer Kit"
        self.write("sys/firmware/devicetree/base/model", f"{model}\0")
        self.write("sys/firmware/devicetree/base/compatible", "nvidia,p3768-0000+p3767-0005\0")
        for name in ("possible", "present", "online"):
            self.write(f"sys/devices/system/cpu/{name}", "0-1\n")

    def _start(self) -> None:
        self._namespace = f"board{os.getpid()}"
        veth = f"v{os.getpid()}"
        _run("ip", "netns", "add", self._namespace)
        _run("ip", "link", "add", veth, "type", "veth", "peer", "eth0", "netns", self._namespace)
        _run("ip", "addr", "add", f"{HOST_ADDRESS}/24", "dev", veth)
        _run("ip", "link", "set", veth, "up")
        inside = ["ip", "-n", self._namespace]
        _run(*inside, "addr", "add", f"{ADDRESS}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            _run(*inside, "link", "set", device, "up")
        script = (
            'mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc" && '
            'exec chroot "$1" /usr/sbin/sshd -D -f /etc/ssh/board_config -E /tmp/sshd.log'
        )
        self.server = subprocess.Popen(
            ["ip", "netns", "exec", self._namespace, "unshare", "--mount", "--pid", "--fork",
             "--kill-child", "sh", "-c", script, "sh", str(self.root)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection((ADDRESS, 22), 1):
                return
            if self.server.poll() is not None:
                break
            time.sleep(0.1)
        self.stop()
        raise RuntimeError("the emulated board's sshd does not listen")

    def left(self) -> list[str]:
        """Return what lies where runs could leave something."""
        known = ("sshd.log", ".ssh", "authorized_keys")
        found = [
            os.path.join(folder, name)
            for place in ("var/tmp", "tmp", "home/jetson")
            for folder, folders, files in os.walk(self.root / place)  # what vanishes is no error
            for name in (*folders, *files)
        ]
        return sorted(path for path in found if os.path.basename(path) not in known)

    def processes(self) -> list[str]:
        """Return the processes of the user, sshd's own left out."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                root = os.readlink(f"/proc/{pid}/root")
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                if root == str(self.root) and "sshd" not in command:
                    found.append(command)
        return found

    def stop(self) -> None:
        """End the board and all on it."""
        if self.server.poll() is None:
            os.killpg(self.server.pid, signal.SIGKILL)
            self.server.wait()
        subprocess.run(["ip", "netns", "del", self._namespace], check=False)


def _register_qemu() -> None:
    if not (_BINFMT / "register").exists():
        _run("mount", "-t", "binfmt_misc", "none", _BINFMT)
    subprocess.run(["update-binfmts", "--enable", "qemu-aarch64"], check=False)


def _unpack_packages(root: Path) -> None:
    # No arm64 script runs: apt only downloads, dpkg only unpacks.
    debs = root.with_name("debs")
    (debs / "partial").mkdir(parents=True, exist_ok=True)
    _run("dpkg", "--add-architecture", "arm64")
    _run("apt-get", "update", "-qq")
    options = {
        "Dir::Cache::archives": debs,
        "Dir::State::status": "/dev/null",
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
    }
    pairs = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    _run("apt-get", "install", "-y", "--download-only", "-qq", *pairs, *PACKAGES)
    for deb in sorted(debs.glob("*.deb")):
        _run("dpkg", "-x", deb, root)


def _run(*command: object) -> None:
    words = [str(word) for word in command]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr}")
