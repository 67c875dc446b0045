"""A referee that needs nothing but Python; another distribution would bring its record so."""

from fastseg_exporters.gate.referees.referee import Referee
from fastseg_runtime.bundle.manifest import Artifact


def _judges(artifact: Artifact) -> bool:
    return artifact.format == "onnx"


REFEREE = Referee(
    "fake",
    "fake_referees.judge_fake",
    "a script of the tests",
    download_mb=0,
    installed_mb=1,
    licence="MIT (LICENSE)",
    is_not="a toolchain",
    judges=_judges,
)
