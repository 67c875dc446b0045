"""Mistakes that show on this machine alone, found before any board is touched."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from fastseg_runtime.bundle.file_kind import UNKNOWN, file_kind
from fastseg_runtime.bundle.usage import COMMERCIAL, UsageRefusedError, require_usage
from fastseg_runtime.engines.own_onnx import NOTHING_SAID
from fastseg_targets.device import Device, load_device, read_device, user_devices

from remote_bench.analysis.requirements import Requirements, parse
from remote_bench.host.errors import BenchError, UsageError
from remote_bench.run.benchmark import Benchmark
from remote_bench.run.bundles import is_onnx, open_onnx, read_manifest, usage_to_measure

_MOST_SOAK_MIN = 60  # more frames would make a result that is too big to be fetched
_NETWORKS = (".safetensors", ".pth", ".engine", ".tflite", ".mlpackage")
# Option -> what it would pass over in silence, and why.
_APART: dict[str, tuple[tuple[str, ...], str]] = {
    "--resume": (
        ("a host", "a bundle", "--detach", "--sweep", "--target", "--frames", "--fps",
         "--power-mode", "--deploy", "--require-usage", "--soak", "--allow-busy", "--lengthen",
         "--device", "--binary", "--keep", "--folder"),
        "the run has what it was started with",
    ),
    "--sweep": (
        ("a bundle", "--detach", "--deploy", "--record", "--report", "--require-usage", "--strict"),
        "it measures networks of its own and gives a table",
    ),
    "adb:": (
        ("--frames", "--fps", "--soak", "--power-mode", "--deploy", "--detach", "--sweep", "--keep",
         "--lengthen", "--folder", "--allow-busy"),
        "a phone runs a benchmark tool alone",
    ),
    "--detach": (("--require", "--strict", "--record", "--report"), "give that to --resume"),
}  # fmt: skip


def check_together(given: Mapping[str, object]) -> None:
    """Return normally if no option would be ignored because of another one.

    Args:
        given: what the user gave, by the name of the option; what is false was not given.

    Raises:
        UsageError: two that do not go together.
    """
    for option, (others, why) in _APART.items():
        ignored = [other for other in others if given.get(option) and given.get(other)]
        if ignored:
            raise UsageError(f"{option} does not go with {' and '.join(ignored)}: {why}")


def split_names(names: list[str]) -> tuple[list[str], Path | None]:
    """Return the hosts, and the bundle or the ONNX file among the arguments.

    Raises:
        UsageError: two bundles, or a host twice.
    """
    bundles = [name for name in names if name.endswith((".fastseg", ".onnx"))]
    hosts = [name for name in names if name not in bundles]
    if len(bundles) > 1 or len(set(hosts)) < len(hosts):
        raise UsageError(f"expected hosts, each once, and one bundle at most, got {names}")
    return hosts, Path(bundles[0]) if bundles else None


def requirements(text: str | None) -> Requirements | None:
    """Return what --require asks for."""
    try:
        return None if text is None else parse(text)
    except ValueError as error:
        raise UsageError(f"--require: {error}") from error


def named_device(named: str | None) -> Device | None:
    """Return the board that --device names, a file or one that is known; None: it is recognised.

    Raises:
        UsageError: no such board, or a file, that or another in the user's folder, with a mistake.
    """
    try:
        known = {device.name: device for device in user_devices()}
        if named is None or named in known:
            return known.get(named or "")
        return read_device(Path(named)) if named.endswith(".toml") else load_device(named)
    except ValueError as error:
        text = str(error) if named is None else f"--device {named}: {error}"
        raise UsageError(text) from error


def words(text: str | None) -> tuple[str, ...]:
    """Return a program and its arguments, as a shell would split them.

    Raises:
        UsageError: a quote without its end.
    """
    try:
        return tuple(shlex.split(text or ""))
    except ValueError as error:
        raise UsageError(f"--binary {text}: {error}; expected FILE and its arguments") from error


def check_soak(text: str | None) -> None:
    """Return normally if --soak is minutes or "steady".

    Raises:
        UsageError: it is neither.
    """
    try:
        if text in (None, "steady") or 0 < float(text or 0) <= _MOST_SOAK_MIN:
            return
    except ValueError:
        pass
    raise UsageError(f"--soak {text}: expected minutes, {_MOST_SOAK_MIN} at most, or steady")


def check_host(name: str) -> None:
    """Return normally if a name may be a host's.

    Raises:
        UsageError: it is that of a bundle, a report or another file.
    """
    if name.endswith((".fastseg", ".json")):
        raise UsageError(
            f"{name} is no host, such as jetson.local; remote_bench HOST NAME.fastseg measures a "
            "bundle, remote_bench compare A.json B.json holds two reports against each other"
        )
    kind = _kind_of_file(name)
    if name.endswith(_NETWORKS) or kind:
        what = f", but {kind}" if kind else ""
        raise UsageError(
            f"{name} is neither a host nor a bundle{what}; remote_bench measures NAME.onnx, or "
            "NAME.fastseg, which fastseg-export makes of a network"
        )


def _kind_of_file(name: str) -> str:
    """Return what a file of that name holds; "" where it may be a host's name all the same."""
    if not Path(name).is_file():
        return ""
    kind = file_kind(name)
    may_be_a_host = "/" not in name and kind in (UNKNOWN, "a text file", "an empty file")
    return "" if may_be_a_host else kind


def check(hosts: list[str], benchmark: Benchmark, html: Path | None) -> None:
    """Return normally if nothing that is named here can end the measurement in vain.

    Raises:
        UsageError: a file for a host, no such bundle, target or frames, or no place for the page.
        BenchError: the weights are not for the use that the benchmark requires.
    """
    if benchmark.require_usage not in (None, COMMERCIAL):
        raise UsageError(f"--require-usage is {benchmark.require_usage!r}; expected {COMMERCIAL}")
    for host in hosts:
        check_host(host)
    is_own = benchmark.bundle is not None and is_onnx(benchmark.bundle)
    if benchmark.own_file != NOTHING_SAID and not is_own:
        raise UsageError(
            "--size, --normalization, --color, --output-name, --threshold and --fit are for an "
            "ONNX file; a bundle says them itself"
        )
    if benchmark.bundle is not None and is_own:
        open_onnx(benchmark.bundle, benchmark.own_file)
    elif benchmark.bundle is not None:
        read_manifest(benchmark.bundle, benchmark.target)
    if benchmark.require_usage is not None:
        name, usage = usage_to_measure(benchmark.bundle)
        try:
            require_usage(benchmark.require_usage, usage, name)
        except UsageRefusedError as error:
            raise BenchError(error) from error
    if benchmark.frames is not None and not benchmark.frames.exists():
        raise UsageError(f"--frames {benchmark.frames}: no such folder or video")
    if html is not None and (html.is_dir() or not os.access(html.absolute().parent, os.W_OK)):
        raise UsageError(f"--report {html}: expected a file in a folder that can be written")


def check_folder(folder: Path) -> None:
    """Return normally if a folder can be made, or is there and empty.

    Raises:
        UsageError: it is a file, holds something, or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = any(folder.iterdir())
    except OSError as error:
        raise UsageError(f"-o {folder}: {error.strerror}; expected a folder to write to") from error
    if held:
        raise UsageError(f"-o {folder}: it holds something; expected a new or an empty folder")
