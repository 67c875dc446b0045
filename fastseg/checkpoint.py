"""Checkpoints: weights and everything needed to use them, in one safetensors file.

The header's key "fastseg" holds a CheckpointInfo as JSON, so that classes, colours,
normalisation and the data's licence travel with the weights. Auxiliary heads are left out:
only training has a use for them.
"""

import dataclasses
import json
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from fastseg_runtime.arrays.shared_files import write_file
from fastseg_runtime.arrays.strict_tables import from_table
from fastseg_runtime.bundle.file_kind import PICKLE, SAFETENSORS, TORCH, file_kind
from fastseg_runtime.bundle.manifest import (
    FITS,
    IGNORE_INDEX,
    ClassInfo,
    InputSpec,
    numbered_classes,
)
from fastseg_runtime.bundle.usage import COMMERCIAL, NOT_STATED, RESEARCH, USAGES, strictest
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fastseg.fastsegnet import FastSegNet
from fastseg.normalization import Normalization
from fastseg.outputs import MAX_CLASSES, Reading
from fastseg.variants import VARIANTS

HEADER_KEY = "fastseg"
WRAPPERS = ("module.", "_orig_mod.")
AUXILIARY = "auxiliary_heads."  # begins the names of weights that are left out
_WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which people save weights
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
_EXPECTED = (
    "a checkpoint (.safetensors), a state dict that torch.save() wrote (.pth), or an ONNX file"
)
_SAVE = "where it was made, call torch.save(model.state_dict(), path)"
_REFUSED = re.compile(r"GLOBAL ([\w.]{1,120})")  # what torch refused to build
# No licence of these grants commercial use: CamVid's authors name none, the others exclude it.
_RESEARCH = ("ade", "camvid", "cityscapes", "cwfid")


class CheckpointError(ValueError):
    """The file is no checkpoint of FastSegNet, or not the one that was asked for."""


@dataclasses.dataclass(frozen=True)
class CheckpointInfo:
    """What the weights are for."""

    variant: str
    classes: tuple[ClassInfo, ...]
    width: int = 480  # pixels: the size the network is meant to run at
    height: int = 360
    mean: float = 128.0
    std: float = 64.0
    ignore_index: int = IGNORE_INDEX
    trained_on: str = ""
    data_licence: str = ""
    usage: str = NOT_STATED  # one of fastseg_runtime.bundle.usage.USAGES
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    pruned: bool = False  # layers may be narrower than the variant's: the weights tell how wide
    evaluation: dict[str, Any] = dataclasses.field(default_factory=dict)  # shipped weights: scores
    normalization: Normalization | None = (
        None  # the network's own, where it is not (x - mean) / std
    )
    output_name: str = ""  # of a network of one's own: which output are its logits
    threshold: float = Reading.threshold  # of one logit: it was trained for class 1 above this
    fit: str = FITS[0]  # how a picture of another aspect comes into its input, one of FITS

    def input_spec(self) -> InputSpec:
        """Return what artifacts take."""
        return InputSpec(self.width, self.height, mean=self.mean, std=self.std, resize=self.fit)

    def input_normalization(self) -> Normalization:
        """Return what the network itself takes; mean and std are what artifacts are given."""
        return self.normalization or Normalization((self.mean,) * 3, (self.std,) * 3, 255)

    def normalization_table(self) -> dict[str, Any] | None:
        """Return the network's own normalisation as JSON has it; None: it has none."""
        return None if self.normalization is None else self.normalization.to_table()

    def terms(self) -> str:
        """Return on what terms the weights stand: of the data, and of ImageNet's behind them."""
        said = (self.data_licence, self.training.get("init_licence"))
        return "; ".join(str(text) for text in said if text)

    def __post_init__(self) -> None:
        """Refuse a usage that nobody could enforce, and a fit that nothing can do."""
        if self.fit not in FITS:
            raise ValueError(f"fit is {self.fit!r:.80}; expected {' or '.join(FITS)}")
        if self.usage not in USAGES:
            raise ValueError(f"usage is {self.usage!r:.80}; expected one of {USAGES}")


def save_checkpoint(
    path: str | Path, model: nn.Module, info: CheckpointInfo, dtype: torch.dtype = torch.float32
) -> None:
    """Write the checkpoint whole or not at all; tensors that layers share, once for each name.

    Args:
        path: the file, *.safetensors by custom; its folder is made.
        model: the network; its weights go to the CPU.
        info: goes into the header.
        dtype: torch.float16 halves the file.

    Raises:
        CheckpointError: see tensors_of.
    """
    left_out = AUXILIARY if isinstance(model, FastSegNet) else ()  # others may call theirs so
    weights = {
        name: (value.to(dtype) if value.is_floating_point() else value)
        .cpu()
        .clone(memory_format=torch.contiguous_format)
        for name, value in tensors_of(model).items()
        if not name.startswith(left_out)
    }
    # Not save_file(), which would make the file private to the user.
    write_file(Path(path), save(weights, {HEADER_KEY: json.dumps(dataclasses.asdict(info))}))


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of a network, whole.

    Raises:
        CheckpointError: something in it is no tensor, which a checkpoint could not hold.
    """
    state: dict[str, Any] = model.state_dict()
    if odd := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        kind = type(state[odd[0]]).__name__
        raise CheckpointError(
            f"{type(model).__name__}: {odd[0]} in its state_dict() is {kind}, and a checkpoint "
            "holds tensors alone; keep what get_extra_state() gives in a buffer"
        )
    return state


def load_checkpoint(
    path: str | Path, num_classes: int | None = None
) -> tuple[FastSegNet, CheckpointInfo]:
    """Read a checkpoint: our safetensors, or a plain state dict (.pth, .pt).

    Args:
        path: the file.
        num_classes: what the caller needs; another count in the file is an error.

    Returns:
        The network in eval mode, without auxiliary heads, and its description. A state dict
        has none, so its classes are named class_0, class_1, ...

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: not a checkpoint, or for another class count.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint {path}; train one with fastseg-train")
    if file_kind(path) == SAFETENSORS:
        weights, header = _read_safetensors(path)
    else:
        weights, header = read_state_dict(path), None
        weights = {k: v for k, v in weights.items() if not k.startswith(AUXILIARY)}
    info = _parse_header(header, path) if header else _guess_info(weights, path)
    if num_classes not in (None, len(info.classes)):
        raise CheckpointError(
            f"{path} knows {len(info.classes)} classes, {num_classes} were asked for; "
            "fastseg-train --init CHECKPOINT --classes FILE replaces its head"
        )
    if info.variant not in VARIANTS:
        raise CheckpointError(
            f"{path} holds the weights of {info.variant}, a network of one's own: name that, with "
            f"--weights {path}"
        )
    model = FastSegNet(len(info.classes), info.variant, auxiliary=False)
    if info.pruned:
        narrow_to_weights(model, weights)
    try:
        model.load_state_dict({name: value.float() for name, value in weights.items()})
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: weights do not fit FastSegNet-{info.variant} with {len(info.classes)} "
            f"classes: {misfit(model, weights)}"
        ) from error
    return model.eval(), info


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return weights, (file.metadata() or {}).get(HEADER_KEY)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({error}); train or copy it again"
        ) from error


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read safetensors or a torch state dict without running any code that the file may hold.

    What it is tells its content, not its name.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: another kind of file, or one that holds more than tensors.
    """
    if not path.exists():
        raise FileNotFoundError(f"no weights {path}; name a .safetensors or .pth file")
    kind = file_kind(path)
    if kind == SAFETENSORS:
        return _read_safetensors(path)[0]
    if kind not in (TORCH, PICKLE):
        raise CheckpointError(_not_weights(path, kind))
    try:
        # Given the path, torch goes by the name's ending; of a pickle it warns in words of its own.
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a foreign file
        raise CheckpointError(_not_loaded(path, kind, error)) from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path} holds {type(content).__name__}, expected a state dict")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    # Of what torch.compile and DistributedDataParallel wrap, in either order.
    while tensors and (prefix := _common_wrapper(tensors)):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    if len(tensors) != len(content):
        below = [str(key) for key, value in content.items() if isinstance(value, Mapping)]
        advice = f"; save the weights alone, perhaps those under {below}" if below else ""
        count = len(content) - len(tensors)
        raise CheckpointError(f"{path}: {count} entries are not tensors{advice}")
    return tensors


def _common_wrapper(names: Iterable[str]) -> str:
    return next((p for p in WRAPPERS if all(name.startswith(p) for name in names)), "")


def read_info(path: Path) -> CheckpointInfo | None:
    """Return what a checkpoint's header says of its weights, None where it has none.

    Raises:
        CheckpointError: not a whole file, or a header that cannot be read.
    """
    header = _read_safetensors(path)[1] if file_kind(path) == SAFETENSORS else None
    return _parse_header(header, path) if header else None


def _parse_header(header: str, path: Path) -> CheckpointInfo:
    try:
        table = json.loads(header)
        info = from_table(CheckpointInfo, table, "")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its fastseg header cannot be read: {error}") from error
    return info if "usage" in table else dataclasses.replace(info, usage=_derived_usage(info))


def _derived_usage(info: CheckpointInfo) -> str:
    """Return the usage of weights that were saved before there was such a field."""
    starts = [str(info.training.get(key) or "") for key in ("init", "teacher")]
    # Of a start there is only a name left, such as "camvid-small-distilled".
    inherited = [strictest(map(usage_of_data, name.split("-"))) for name in starts if name]
    unclear = [NOT_STATED] * len(inherited)
    return strictest([usage_of_data(info.trained_on.partition(" ")[0]), *inherited, *unclear])


def usage_of_weights(path: Path) -> str:
    """Return what a file of weights says of its own use; NOT_STATED of other files.

    Raises:
        CheckpointError: its header cannot be read.
    """
    info = read_info(path) if path.is_file() else None
    return NOT_STATED if info is None else info.usage


def _guess_info(weights: Mapping[str, Tensor], path: Path) -> CheckpointInfo:
    classifier = weights.get("head.1.weight")
    # What else is called so is another network's, as one of more classes than ids is.
    if classifier is not None and classifier.ndim == 4 and 1 <= len(classifier) <= MAX_CLASSES:
        shapes = {name: value.shape for name, value in weights.items()}
        for variant in VARIANTS:
            with torch.device("meta"):
                model = FastSegNet(len(classifier), variant, auxiliary=False)
            if shapes == {name: value.shape for name, value in model.state_dict().items()}:
                return CheckpointInfo(variant, numbered_classes(len(classifier)))
    raise CheckpointError(
        f"{path} is no FastSegNet checkpoint; for a network of your own say "
        f"package.module:factory with --weights {path}"
    )


def narrow_to_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Replace convolutions and batch norms whose weights are of another width, in place.

    Args:
        model: a network of the same layers.
        weights: its state dict to be; layers that are not in it are left alone.
    """
    for name, layer in list(model.named_modules()):
        weight = weights.get(f"{name}.weight")
        if weight is None or weight.shape == getattr(layer, "weight", weight).shape:
            continue
        if isinstance(layer, nn.Conv2d):
            model.set_submodule(name, _conv(layer, weight))
        elif isinstance(layer, nn.BatchNorm2d):
            model.set_submodule(name, nn.BatchNorm2d(len(weight), layer.eps, layer.momentum))


def _conv(layer: nn.Conv2d, weight: Tensor) -> nn.Conv2d:
    out_channels, in_channels_of_group = weight.shape[:2]
    depthwise = layer.groups == layer.in_channels and layer.groups > 1
    groups = out_channels if depthwise else layer.groups
    return nn.Conv2d(
        in_channels_of_group * groups,
        out_channels,
        layer.kernel_size,  # type: ignore[arg-type]  # a pair, as nn.Conv2d itself made it
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        groups=groups,
        bias=layer.bias is not None,
    )


def _not_weights(path: Path, kind: str) -> str:
    """Return a line for a file of another kind: what came, what was expected, what to do."""
    fitting = (advice for end, advice in _ADVICE.items() if kind.endswith(end))
    return f"{path} is {kind}; expected {_EXPECTED}: {next(fitting, _CONVERTED)}"


def _not_loaded(path: Path, kind: str, error: Exception) -> str:
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


def usage_of_data(kind: str) -> str:
    """Return the usage of weights trained on "camvid", "synthetic", ...; a user's data say none."""
    if kind in _RESEARCH:
        return RESEARCH
    return COMMERCIAL if kind.partition("-")[0] == "synthetic" else NOT_STATED
