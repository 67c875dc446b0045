"""The record of each referee, and what one says.

A referee is a script, `judge_<name>.py`, that the Python of the referee's own environment runs. Its
standard input is one JSON object with the fields of `Request`; the last line of its standard output
is one with those of `Answer`. It may crash, hang or flood: that is a verdict too. It works in a
folder of its own, that is thrown away. A referee of another distribution joins by the entry-point
group "fastseg.referees", which names its record, `package.module:REFEREE` in capitals, from a
module that imports no toolchain.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from fastseg_runtime.arrays.shared_files import cache_folder, is_private
from fastseg_runtime.arrays.strict_tables import TableError, from_table
from fastseg_runtime.arrays.terminal import is_plain
from fastseg_runtime.bundle.manifest import Artifact
from fastseg_runtime.engines.engine import find_engine, find_precision, from_outside
from fastseg_runtime.engines.selection import made_for

ENTRY_POINTS = "fastseg.referees"
INSTALL = "make referees"
MAX_LINE = 500  # characters of what one says
KEY = "referees"  # in Artifact.extra: verdicts
ALL = "all"


class RefereeError(ValueError):
    """A referee that does not exist, or is not installed."""


def _nothing(artifact: Artifact) -> bool:
    return False


@dataclass(frozen=True)
class Referee:
    """All that is known of one referee without its toolchain.

    Attributes:
        name: in `--referee`.
        script: the module whose file its own Python runs; the same name with .txt has its wheels,
            each pinned with --hash.
        title: the toolchain's name.
        download_mb: what installing it fetches.
        installed_mb: what it then takes on the disk.
        licence: its name and where to read it, told before it is installed.
        is_not: what its verdict does not prove, said beside it.
        judges: whether it has anything to say of an artifact.
        frames: how many it runs in its simulator; 0: it builds alone.
        timeout_s: for one artifact.
    """

    name: str
    script: str = ""
    title: str = ""
    download_mb: int = 0
    installed_mb: int = 0
    licence: str = "that of its distribution"
    is_not: str = ""
    judges: Callable[[Artifact], bool] = _nothing
    frames: int = 0
    timeout_s: float = 900.0

    @property
    def script_file(self) -> Path:
        """Return the script.

        Raises:
            RefereeError: its module is not here.
        """
        try:
            spec = find_spec(self.script)
        except (ImportError, ValueError):
            spec = None
        if spec is None or spec.origin is None:
            raise RefereeError(f"referee {self.name}: no script {self.script!r}")
        return Path(spec.origin)

    @property
    def requirements(self) -> Path:
        """Return the file that pins its wheels."""
        return self.script_file.with_suffix(".txt")

    @property
    def environment(self) -> Path:
        """Return its folder in the user's cache: another one for other wheels."""
        digest = hashlib.sha256(self.requirements.read_bytes()).hexdigest()
        return cache_folder() / "referees" / f"{self.name}-{digest[:12]}"

    @property
    def python(self) -> Path:
        """Return the interpreter of its environment."""
        return self.environment / "bin" / "python"

    @property
    def is_installed(self) -> bool:
        """Return whether its environment was made to its end, by nobody but this user or root."""
        try:
            made = (self.environment / "ready").is_file()
            return made and is_private(self.environment.parent) and is_private(self.environment)
        except (RefereeError, OSError):
            return False

    @property
    def missing(self) -> str:
        """Return what to do where its toolchain is not here, on one line; "" where it is."""
        told = f"{self.title} is not installed here: {INSTALL} REFEREES={self.name}"
        return "" if self.is_installed else told


@dataclass(frozen=True)
class Request:
    """What a script is given, as JSON.

    Attributes:
        folder: with the artifact's files.
        entry: the file to judge, relative to the folder.
        precision: of the artifact.
        io: what it takes and gives, in the words of the manifest.
        frames: a folder with 0.npy, 1.npy ..., uint8 (1, H, W, 3) of the input's size, which the
            artifact is to be run on; null: it need not run.
        outputs: where the script puts what came of each, under the same name; what of it is there
            is compared with PyTorch.
    """

    folder: str
    entry: str
    precision: str
    io: dict[str, Any]
    frames: str | None
    outputs: str


@dataclass(frozen=True)
class Answer:
    """What a script says, as JSON on the last line of its standard output.

    Attributes:
        version: of the toolchain.
        accepted: whether it builds, without a fault that the referee was asked to look for.
        says: one line.
        facts: anything else, for the manifest.
    """

    version: str
    accepted: bool
    says: str
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse texts that are no lines."""
        _check_lines(self)


@dataclass(frozen=True)
class Verdict:
    """What the manifest keeps of a referee; "failed" is the referee's own failure, in `says`."""

    referee: str
    version: str
    outcome: Literal["accepted", "refused", "failed"]
    says: str
    facts: dict[str, Any] = field(default_factory=dict)
    is_not: str = ""

    def __post_init__(self) -> None:
        """Refuse texts that are no lines."""
        _check_lines(self)


def _check_lines(record: Answer | Verdict) -> None:
    for name, value in vars(record).items():
        if isinstance(value, str) and not is_plain(value, MAX_LINE):
            raise ValueError(f"{name} is no line of at most {MAX_LINE} characters")


def verdicts_of(artifact: Artifact) -> list[Verdict]:
    """Return what referees said of an artifact, from its manifest.

    Raises:
        RefereeError: the manifest holds something else there.
    """
    tables = artifact.extra.get(KEY, [])
    try:
        return from_table(_Verdicts, {KEY: tables}, artifact.target, ignore_unknown=True).referees
    except TableError as error:
        raise RefereeError(f"the bundle's verdicts make no sense: {error}") from error


@dataclass(frozen=True)
class _Verdicts:
    referees: list[Verdict]


def _of_tensorrt(artifact: Artifact) -> bool:
    return find_engine(made_for(artifact)).builds


def _gives_logits(artifact: Artifact) -> bool:
    return artifact.format == "onnx" and "logits" in artifact.io


# Class maps of cpu-* have shapes that depend on the picture, which no NPU's compiler takes. What it
# has compiled names its chip.
def _of_fixed_shapes(artifact: Artifact) -> bool:
    return _of_tensorrt(artifact) or _gives_logits(artifact) or "soc" in artifact.extra


def _float_logits(artifact: Artifact) -> bool:
    return _gives_logits(artifact) and find_precision(artifact.precision).is_float


REFEREES = {
    referee.name: referee
    for referee in (
        Referee(
            "tensorrt-rtx",
            "fastseg_exporters.gate.referees.judge_tensorrt_rtx",
            "NVIDIA TensorRT for RTX 1.7.1",
            download_mb=172,
            installed_mb=357,
            licence="NVIDIA Software License Agreement for TensorRT, "
            "LICENSE.txt in its wheel and https://docs.nvidia.com/deeplearning/tensorrt-rtx",
            is_not="a Jetson's TensorRT: it builds for no SM87, knows strongly typed networks "
            "alone, has no int8 convolutions of its own, and nothing was run",
            judges=_of_tensorrt,
        ),
        Referee(
            "qualcomm-htp",
            "fastseg_exporters.gate.referees.judge_qualcomm_htp",
            "Qualcomm's compiler and simulator for its NPU, HTP (onnxruntime-qnn 2.7.0)",
            download_mb=153,
            installed_mb=433,
            licence="MIT and, of the compiler, Qualcomm's AI Stack License: both in the wheel, "
            "https://pypi.org/project/onnxruntime-qnn/2.7.0/",
            is_not="a Snapdragon: a simulator on x86, of the SM8650 alone, which tells no time",
            judges=_of_fixed_shapes,
            frames=1,
            timeout_s=1800,
        ),
        Referee(
            "rknn",
            "fastseg_exporters.gate.referees.judge_rknn",
            "Rockchip's RKNN-Toolkit2 2.5.0, with its simulator",
            download_mb=177,
            installed_mb=597,
            licence="RKNN SDK License, https://github.com/airockchip/rknn-toolkit2/blob/master/LICENSE",
            is_not="an RK3588: a simulator on x86, the same for all chips, which tells no time",
            judges=_float_logits,
            frames=20,
            timeout_s=1800,
        ),
    )
}


def referees() -> dict[str, Referee]:
    """Return all that are known here by their names, ours first."""
    return {**REFEREES, **from_outside(ENTRY_POINTS, Referee), **REFEREES}


def select_referees(names: str) -> list[Referee]:
    """Return the installed referees that "all" or "NAME,NAME" asks for.

    Raises:
        RefereeError: none of that name, or it is not installed.
    """
    known = referees()
    if names == ALL:
        chosen = [referee for referee in known.values() if referee.is_installed]
        if not chosen:
            raise RefereeError(f"no referee is installed here: {INSTALL}")
        return chosen
    asked = [name.strip() for name in names.split(",")]
    if unknown := [name for name in asked if name not in known]:
        raise RefereeError(f"no referee {unknown[0]!r}; choose of {ALL}, {', '.join(known)}")
    if missing := [name for name in asked if not known[name].is_installed]:
        raise RefereeError(f"no referee {missing[0]} is installed here: {INSTALL}")
    return [known[name] for name in dict.fromkeys(asked)]
