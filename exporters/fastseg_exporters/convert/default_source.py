"""Which network to take when the user names none."""

from pathlib import Path

from fastseg import CheckpointError, pretrained


def default_checkpoint(folder: Path) -> tuple[str, str]:
    """Return a network for open_network() and where it comes from, in words.

    The newest runs/*/model.safetensors below the folder, else the best network that ships.

    Raises:
        CheckpointError: there is none; the message says how to train one.
    """
    runs = sorted(folder.glob("runs/*/model.safetensors"), key=lambda path: path.stat().st_mtime)
    if runs:
        return str(runs[-1]), "the newest run here"
    shipped = pretrained.default()
    if shipped is not None:
        return shipped, "shipped with fastseg"
    raise CheckpointError(
        f"no runs/*/model.safetensors in {folder}, and no network ships yet; train one in two "
        "minutes: fastseg-train --data synthetic --model nano --minutes 2"
    )
