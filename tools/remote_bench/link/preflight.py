"""How the keeper is started: one fixed command line that any login shell understands.

sshd hands a command line to the user's login shell, which may be sh, csh or fish. In single quotes,
without quotes, `!`, `\\` or line breaks inside, all of them pass it on as it is. What varies goes
over stdin. The shell gives a sign of life before it looks for a Python, which may start slowly: so
a board that hangs and one that is merely slow can be told apart.
"""

import json
from importlib import resources
from typing import Any

from remote_bench.link.lines import SHELL_SIGN

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
COMMAND = f"exec /bin/sh -c '{_SCRIPT}'"


def program(settings: dict[str, Any]) -> bytes:
    """Return what goes to stdin first: the loader with its length, settings and sources."""
    folder = resources.files("remote_bench").joinpath("keeper")
    texts = {
        file.name.removesuffix(".py"): file.read_text("utf-8")
        for file in folder.iterdir()
        if file.name.endswith(".py")
    }
    loader = texts.pop("start").encode("utf-8")
    sources = {"keeper": texts.pop("__init__")}
    sources.update({f"keeper.{name}": text for name, text in texts.items()})
    line = json.dumps([settings, sources]).encode("ascii")
    return b"%d\n%b%b\n" % (len(loader), loader, line)
