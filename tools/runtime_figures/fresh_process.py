"""What a program costs before and beside its frames: imports, the cold start, its memory.

Each is measured in an interpreter of its own.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

COLD_START = """
from time import {clock}
start = {clock}()
import numpy
from fastseg_runtime import RealtimeSegmentation
session = RealtimeSegmentation({path!r}, target="cpu-fp32")
session.infer(numpy.zeros((session.input.height, session.input.width, 3), "uint8"))
print({clock}() - start)
"""
IMPORT = """
from time import {clock}
start = {clock}()
import {what}
print({clock}() - start)
"""
# VmHWM, not getrusage: that also counts what this process was before exec.
STREAM_MEMORY = """
import numpy
from fastseg_runtime import RealtimeSegmentation
session = RealtimeSegmentation({path!r}, target="cpu-fp32", engines={engines})
camera = (numpy.full((720, 1280, 3), index % 256, "uint8") for index in range(100))
for result in session.stream(camera, draw=session.overlay):
    pass
status = dict(line.split(":") for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) * 1024 / 1e6)
"""


def import_s(what: str, clock: str) -> float:
    """Return the seconds that `import what` takes by a clock of the module time."""
    return fastest(IMPORT.format(what=what, clock=clock))


def cold_start_s(bundle: Path, clock: str, first: bool = False) -> float:
    """Return the seconds from the start of the imports to the first class map, self-test included.

    The files are in the system's cache, as they are at a program's second start.

    Args:
        bundle: with a target cpu-fp32.
        clock: of the module time.
        first: as where this engine never opened it: all scenes of the self-test are run.
    """
    code = COLD_START.format(path=str(bundle), clock=clock)
    with tempfile.TemporaryDirectory() as cache:
        if first:  # a folder that cannot be made remembers nothing
            cache = f"{os.devnull}/nowhere"
        return fastest(code, environment={**os.environ, "FASTSEG_CACHE": cache})


def stream_memory_mb(bundle: Path, engines: int = 1) -> float:
    """Return the peak resident memory of stream() with frames of 1280x720, drawing included."""
    return fastest(STREAM_MEMORY.format(path=str(bundle), engines=engines), runs=1)


def fastest(code: str, runs: int = 5, environment: dict[str, str] | None = None) -> float:
    """Return the smallest number that a program prints in some runs."""
    command = [sys.executable, "-c", code]
    outputs = [
        subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        for _ in range(runs)
    ]
    return round(min(float(output) for output in outputs), 3)
