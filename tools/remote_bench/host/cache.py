"""Where this machine keeps what can be made or fetched again."""

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """Return a folder of ours in the user's cache; made where it is missing."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "remote_bench" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
