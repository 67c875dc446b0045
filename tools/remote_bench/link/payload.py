"""The code that travels: the agent and the runtime, in one small zip."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fastseg_runtime

_RUNTIME = Path(str(fastseg_runtime.__file__)).parent
_AGENT = Path(__file__).parents[1] / "agent"
RUNTIME_PATH = "runtime"  # goes on sys.path on the board
_SOMETIME = (2020, 1, 1, 0, 0, 0)  # the same content gives the same zip


def code_zip() -> bytes:
    """Return a zip with agent/ and runtime/fastseg_runtime/."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in _files():
            archive.writestr(zipfile.ZipInfo(name, _SOMETIME), file.read_bytes())
    return content.getvalue()


def _files() -> Iterator[tuple[str, Path]]:
    for folder, place in ((_AGENT, "agent"), (_RUNTIME, f"{RUNTIME_PATH}/fastseg_runtime")):
        for file in sorted(folder.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                yield f"{place}/{file.relative_to(folder).as_posix()}", file
