"""The networks that ship with the workstation's package `fastseg`, for who names no bundle."""

from importlib.util import find_spec
from pathlib import Path

# The first that ships is taken where none is named: the best score so far comes first.
PREFERRED = ("small-camvid", "base-camvid", "nano-camvid", "nano-synthetic")


def find_shipped(name: str = "") -> Path:
    """Return the checkpoint of a shipped network, the preferred one unless named.

    Raises:
        FileNotFoundError: it is not here; the message says what to name instead.
    """
    package = find_spec("fastseg")  # looks for it without importing it
    if package is not None and package.origin:
        for candidate in [name] if name else PREFERRED:
            path = Path(package.origin).parent / "weights" / f"{candidate}.safetensors"
            if path.is_file():
                return path
    raise FileNotFoundError(
        f"{name or 'no bundle named'}: no such file, and no network to take instead; name a bundle "
        "made by fastseg-export. Networks ship with pip install 'fastseg-edge[train]'"
    )
