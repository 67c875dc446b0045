"""The weights that ship with the package, by name: none so far."""

from pathlib import Path

FOLDER = Path(__file__).parent / "weights"


def names() -> list[str]:
    """Return the names of the shipped weights, such as "base-camvid"."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def find(name: str) -> Path | None:
    """Return the file of shipped weights, or None if there are none of that name."""
    return FOLDER / f"{name}.safetensors" if name in names() else None
