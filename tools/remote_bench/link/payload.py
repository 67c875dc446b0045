"""The code that travels: the keeper, whom a login shell starts, then the agent and the runtime.

sshd hands a command line to the user's login shell, which may be sh, csh or fish. In single quotes,
without quotes, `!`, `\\` or line breaks inside, all of them pass it on as it is. What varies goes
over stdin. A bare `sh`, without `exec` or a slash, is what a restricted shell passes on too. It
gives a sign of life before it looks for a Python, which may start slowly: so a board that hangs and
one that is merely slow can be told apart, and nothing is sent that a profile which reads takes.
"""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastseg_runtime

from remote_bench.messages import SHELL_SIGN

_RUNTIME = Path(str(fastseg_runtime.__file__)).parent
_OURS = Path(__file__).parents[1]
_SHARED = (_OURS / "__init__.py", _OURS / "messages.py")  # what keeper and agent both need
RUNTIME_PATH = "runtime"  # goes on sys.path on the board
_STAYS = {"__pycache__", "cli", "view.py"}  # fastseg-run, its page too: nobody types commands there
_SOMETIME = (2020, 1, 1, 0, 0, 0)  # the same content gives the same zip
NO_PYTHON = 86  # exit status: no Python that will do

_PYTHONS = " ".join(["python3", *(f"python3.{minor}" for minor in range(14, 7, -1))])
# The runtime needs 3.8; with an older one down to 3.6 the board can at least be probed.
_SCRIPT = (
    f'echo "{SHELL_SIGN}"; '
    "export LC_ALL=C PYTHONUTF8=1 PYTHONDONTWRITEBYTECODE=1; "
    f"for minor in 8 6; do for python in {_PYTHONS}; do "
    'if "$python" -c "import sys; sys.exit(sys.version_info < (3, $minor))" 2>/dev/null; then '
    'exec "$python" -u -c "import sys; '
    'exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"; '
    "fi; done; done; "
    'echo "$(uname -sm), python3: $(python3 -V 2>&1)" >&2; '
    f"exit {NO_PYTHON}"
)
COMMAND = f"sh -c '{_SCRIPT}'"


def program(settings: dict[str, Any]) -> bytes:
    """Return what goes to stdin first: the loader with its length, settings and sources."""
    start = _OURS / "keeper/start.py"
    files = {*_SHARED, *_OURS.glob("keeper/*.py")} - {start}
    sources = {_module_name(file): file.read_text("utf-8") for file in files}
    loader = start.read_bytes()
    line = json.dumps([settings, sources]).encode("ascii")
    return b"%d\n%b%b\n" % (len(loader), loader, line)


def _module_name(file: Path) -> str:
    parts = ("remote_bench", *file.relative_to(_OURS).with_suffix("").parts)
    return ".".join(part for part in parts if part != "__init__")


def code_zip() -> bytes:
    """Return a zip with the agent and the runtime, each as a package."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, file in _files():
            entry = zipfile.ZipInfo(name, _SOMETIME)
            archive.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)
    return content.getvalue()


def _files() -> Iterator[tuple[str, Path]]:
    for file in _SHARED:
        yield f"remote_bench/{file.name}", file
    places = {_OURS / "agent": "remote_bench/agent", _RUNTIME: f"{RUNTIME_PATH}/fastseg_runtime"}
    for folder, place in places.items():
        for file in sorted(folder.rglob("*")):
            if file.is_file() and _STAYS.isdisjoint(file.parts):
                yield f"{place}/{file.relative_to(folder).as_posix()}", file
