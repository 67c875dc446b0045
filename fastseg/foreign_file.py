"""What to say of a file that was expected to hold weights, and does not."""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

# End of a kind of file (fastseg_runtime.bundle.file_kind) -> what to do where weights are wanted.
_ADVICE = {
    "a folder": "name the file in it, such as model.safetensors",
    "an empty file": "copy or train it again",
    "cut short": "copy it again",
    "failed download leaves it": "download it again",
    "a fastseg bundle": "run it with fastseg-run, or name the checkpoint that it was made from",
    "the file it stands for": "fetch that with: git lfs pull",
    "archive": "unpack it first",
    "picture": "name the network first and the picture after it",
    "video": "name the network first and the video after it",
}
_CONVERTED = "name the checkpoint, or the package.module:factory, that it was made from"
_EXPECTED = "a checkpoint (.safetensors), or a state dict that torch.save() wrote (.pth)"
_SAVE = "where it was made, call torch.save(model.state_dict(), path)"
_REFUSED = re.compile(r"GLOBAL ([\w.]{1,120})")  # what torch refused to build


def not_weights(path: Path, kind: str) -> str:
    """Return a line for a file of another kind: what came, what was expected, what to do."""
    fitting = (advice for end, advice in _ADVICE.items() if kind.endswith(end))
    return f"{path} is {kind}; expected {_EXPECTED}: {next(fitting, _CONVERTED)}"


def not_loaded(path: Path, kind: str, error: Exception) -> str:
    """Return a line for a file that torch would not load.

    torch's own words are left out: they recommend to load it unsafely, whatever it is.
    """
    refused = _REFUSED.search(str(error))
    holds = f"it holds {refused[1]}, more than tensors" if refused else "it is damaged or foreign"
    return f"{path} is {kind}, but not a state dict that loads safely: {holds}; {_SAVE}"


def misfit(model: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """Return in one line why weights do not fit a network, with a name for each kind of trouble."""
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in weights]
    unknown = [name for name in weights if name not in wanted]
    other = [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(wanted[name].shape)}"
        for name in wanted
        if name in weights and weights[name].shape != wanted[name].shape
    ]
    troubles = {"missing": missing, "unknown to it": unknown, "of another shape": other}
    found = [f"{len(names)} {what} ({names[0]})" for what, names in troubles.items() if names]
    return f"of its {len(wanted)} tensors " + ", ".join(found)
