"""Exporters that go wrong in every way that a real converter has been seen to."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fastseg_exporters.convert.exporter import ExportedArtifact, Request

MEGABYTES_OF_OUTPUT = 8


def crash(request: Request, out_dir: Path) -> ExportedArtifact:
    """Die as native code does, a temporary file half written."""
    tempfile.mkstemp()
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError("not reached")


def hang(request: Request, out_dir: Path) -> ExportedArtifact:
    """Never come back, and start a child that does not either."""
    code = "import time; time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", code])
    (out_dir / "child.pid").write_text(str(child.pid))
    time.sleep(600)
    raise AssertionError("not reached")


def flood(request: Request, out_dir: Path) -> ExportedArtifact:
    """Print megabytes, leave a file behind, then refuse."""
    for _ in range(MEGABYTES_OF_OUTPUT):
        sys.stdout.write("noise " * ((1 << 20) // 6))
    (out_dir / "rubbish.bin").write_bytes(b"x")
    raise ValueError("operator Frobnicate is unknown")


def exit_quietly(request: Request, out_dir: Path) -> ExportedArtifact:
    """End the process as if all were well."""
    os._exit(0)


def gives_a_path(request: Request, out_dir: Path) -> ExportedArtifact:
    """Name its file by where it lies, as is done first."""
    (out_dir / "m.pt2").write_bytes(b"x")
    return ExportedArtifact("pt2", out_dir / "m.pt2", {}, {}, {})  # type: ignore[arg-type]
