"""numpy and an engine for a board that has none: pinned wheels, fetched by this machine.

wheels.toml has version and hash by Python and CPU. pip downloads them here, into the user's cache;
the board needs no network and gains no package: they are unpacked in the work folder.
"""

import hashlib
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from fastseg_runtime.bundle.manifest import Artifact
from fastseg_runtime.engines.engine import Engine, engines, find_engine, openers
from fastseg_runtime.engines.selection import is_at_least, made_for, minimum_version

from remote_bench.host.errors import MissingRequirement
from remote_bench.host.local import cache_folder

_DOWNLOAD_S = 900.0  # 20 MB of onnxruntime at 200 kbit/s
_OLDEST_PYTHON = (3, 8)  # of fastseg_runtime
_LIBC = re.compile(r"glibc 2\.([0-9]+)")


def missing_packages(
    probe: Mapping[str, Any], artifacts: Iterable[Artifact], named: bool = False
) -> list[str]:
    """Return the packages to bring so that the board can run at least one of the artifacts.

    Args:
        probe: of the board.
        artifacts: that may run.
        named: the user named their target: then the runtime takes any backend that opens it, and
            else the one that it was made for alone.

    Raises:
        MissingRequirement: the board's Python is too old for the runtime.
    """
    modules, version = probe["python"]["modules"], probe["python"]["version"]
    if _version(version) < _OLDEST_PYTHON:
        raise MissingRequirement(
            f"the board's newest Python is {version}; fastseg_runtime needs 3.8 or newer "
            "(JetPack 5 and newer have it; on JetPack 4: sudo apt-get install python3.8)"
        )
    pairs = [(artifact, engine) for artifact in artifacts for engine in _engines(artifact, named)]
    brought = [engine for _, engine in pairs if engine.wheels]
    if any(_serves(modules, *pair) for pair in pairs) or not brought:
        return [] if modules.get("numpy") else ["numpy"]
    on_cpu = [engine.wheels for engine in brought if not engine.accelerator]
    on_npu = [engine.wheels for engine in brought if engine.accelerator]
    # Whether the board has the NPU is seen there: what runs on any board comes with it.
    if on_cpu and on_npu and not set(on_npu[0]) <= _pinned(probe):
        on_npu = []
    # numpy too, so that it fits them
    return ["numpy", *(name for wheels in (on_cpu[:1], on_npu[:1]) for x in wheels for name in x)]


def _pinned(probe: Mapping[str, Any]) -> set[str]:
    try:
        return set(_pins(probe))
    except MissingRequirement:  # said where the wheels are fetched
        return set()


def packages_for_each(probe: Mapping[str, Any], artifacts: Iterable[Artifact]) -> list[str]:
    """Return the packages to bring so that the board can run each artifact that it can.

    What has no pinned wheel for the board is left out: the artifact then fails there, by name.

    Raises:
        MissingRequirement: see missing_packages.
    """
    wanted = {name: None for one in artifacts for name in missing_packages(probe, [one])}
    pins = _pins(probe) if wanted else {}
    return [name for name in wanted if name in pins]


def lacks(probe: Mapping[str, Any], artifact: Artifact) -> str:
    """Return why a board can never run an artifact by its own engine; "" where it may."""
    engine = find_engine(made_for(artifact))
    if engine not in board_engines():
        return f"it needs {engine.title}, which runs on {engine.platform or 'no board'}"
    modules = probe["python"]["modules"]
    if engine.wheels or any(modules.get(module) for module in engine.modules):
        return ""
    return f"it needs {engine.title}: {engine.install}"


def board_engines() -> list[Engine]:
    """Return the engines that a Linux board may have."""
    return [e for e in engines().values() if e.for_devices and e.platform in (None, "linux")]


def engine_modules() -> list[str]:
    """Return the import names of the libraries that the agent looks for."""
    return [module for engine in board_engines() for module in engine.modules]


def builds_engines(probe: Mapping[str, Any]) -> bool:
    """Return whether a board has a library that builds an engine of its own, and keeps it."""
    modules = [module for engine in board_engines() if engine.builds for module in engine.modules]
    return any(probe["python"]["modules"].get(module) for module in modules)


def _serves(modules: Mapping[str, str | None], artifact: Artifact, engine: Engine) -> bool:
    """Return whether the board has an engine for an artifact that is not too old for it."""
    module = next((name for name in engine.modules if modules.get(name)), None)
    if module is None:  # the runtime takes the first that is there
        return False
    version = modules[module]
    minimum = minimum_version(artifact, engine.name, module)
    return version is None or version == "unknown" or is_at_least(version, minimum)


def _engines(artifact: Artifact, named: bool) -> list[Engine]:
    made = made_for(artifact)
    # The last opener is the one that runs on most boards: OpenVINO has pins for x86 alone.
    opens = [made, *(engine.name for engine in reversed(openers(artifact.format)) if named)]
    known = {engine.name: engine for engine in board_engines()}
    return [known[name] for name in dict.fromkeys(opens) if name in known]


def fetch_wheels(probe: Mapping[str, Any], packages: list[str]) -> list[Path]:
    """Return wheels that fit the board, from the cache or else by pip.

    Raises:
        MissingRequirement: there is none for this board, or no network; the message has the one
            command that mends it.
    """
    pins = _pins(probe)
    lacking = sorted(set(packages) - set(pins))
    if lacking:
        raise MissingRequirement(
            f"no pinned wheel of {lacking} for {_describe(probe)}: install it on the board"
        )
    wanted = {name: pins[name] for name in packages}
    found = {name: _cached(name, *pin) for name, pin in wanted.items()}
    absent = [name for name, wheel in found.items() if wheel is None]
    if absent:
        _download(probe, {name: wanted[name] for name in absent})
        found |= {name: _cached(name, *wanted[name]) for name in absent}
    wheels = [wheel for wheel in found.values() if wheel is not None]
    if len(wheels) < len(packages):
        raise MissingRequirement(
            f"pip did not bring the pinned wheels of {absent}: empty {cache_folder('wheels')}"
        )
    return wheels


def _pins(probe: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    text = resources.files("remote_bench").joinpath("wheels.toml").read_text("utf-8")
    major, minor = _version(probe["python"]["version"])
    python: dict[str, Any] = tomllib.loads(text).get(f"{major}.{minor}", {})
    pins = python.get(_machine(probe), {})
    is_glibc = _LIBC.search(probe["python"].get("libc") or "")
    for engine in board_engines():
        pins = {**engine.pins.get(f"{major}.{minor}", {}).get(_machine(probe), {}), **pins}
    if not pins or not is_glibc or probe["python"]["implementation"] != "CPython":
        raise MissingRequirement(
            f"no wheels are known for {_describe(probe)}; install numpy and an engine on the board "
            "(pip install numpy onnxruntime)"
        )
    return {name: (version, sha256) for name, (version, sha256) in pins.items()}


def _describe(probe: Mapping[str, Any]) -> str:
    python = probe["python"]
    return f"{python['implementation']} {python['version']}, {_machine(probe)}, {python['libc']}"


def _machine(probe: Mapping[str, Any]) -> str:
    # Of the Python, not of the kernel: a 32-bit system may run on a 64-bit kernel.
    return str(probe["python"]["platform"]).removeprefix("linux-").replace("-", "_")


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def _cached(name: str, version: str, sha256: str) -> Path | None:
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    wheels = cache_folder("wheels").glob(pattern)
    return next((wheel for wheel in wheels if _sha256(wheel) == sha256), None)


def _sha256(wheel: Path) -> str:
    with wheel.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(probe: Mapping[str, Any], pins: dict[str, tuple[str, str]]) -> None:
    lines = [f"{name}=={version} --hash=sha256:{sha}\n" for name, (version, sha) in pins.items()]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.writelines(lines)
        requirements.flush()
        command = [*pip_command(probe), "--require-hashes", "-r", requirements.name]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_DOWNLOAD_S)
            said = done.stderr.decode("utf-8", "replace").strip()[-400:]
        except subprocess.TimeoutExpired:
            said = f"no end within {_DOWNLOAD_S:.0f} s"
        else:
            if done.returncode == 0:
                return
    names = [f"{name}=={version}" for name, (version, _) in pins.items()]
    raise MissingRequirement(
        f"the board has no {' and no '.join(pins)}, and pip cannot fetch the wheel here ({said}). "
        f"Where there is network, run: {shlex.join([*pip_command(probe), *names])}"
    )


def pip_command(probe: Mapping[str, Any]) -> list[str]:
    """Return the command that downloads wheels for the board into the cache, packages missing."""
    version, machine = _version(probe["python"]["version"]), _machine(probe)
    libc = _LIBC.search(probe["python"]["libc"])
    newest = int(libc[1]) if libc else 17
    tags = [f"manylinux_2_{minor}" for minor in range(newest, 16, -1)] + ["manylinux2014"]
    platforms = [option for tag in tags for option in ("--platform", f"{tag}_{machine}")]
    python = ["--python-version", "{}.{}".format(*version), "--implementation", "cp"]
    kinds = ["--no-deps", "--only-binary=:all:", "--abi", "cp{}{}".format(*version)]
    folder = ["--dest", str(cache_folder("wheels"))]
    return [sys.executable, "-m", "pip", "download", *kinds, *python, *platforms, *folder]
