"""docs/models.md: a table of the shipped networks and a card of each, from their own headers."""

from collections.abc import Sequence
from pathlib import Path

from fastseg_runtime.bundle.usage import describe_usage

from fastseg import CheckpointInfo, Network, pretrained, profile

HEAD = """\
# The networks that ship

Written by `tools/ship_weights/ship_weights.py` from the headers of `fastseg/weights/*.safetensors`;
change the networks, not this page.

A name works wherever a command takes a checkpoint:

    fastseg-run {name} photo.jpg
    fastseg-export {name} --target cpu-fp32
    fastseg-train --evaluate {name} --data camvid:PATH
    fastseg-train --init {name} --data folder:PATH
    python -c "from fastseg import open_network; network = open_network('{name}').model"

Weights are stored in half precision and computed with in float32 or what a target asks for. Scores
are of the rounded weights, single scale, over the whole test split. Each is the end of a fixed
schedule, not its best moment; which schedules ship was decided knowing their scores.

The code's MIT licence does not cover the weights: `fastseg/weights/LICENSE-WEIGHTS` does. What they
may be used for is `usage` in each header, "research" or "commercial" ("" where nobody said). A
bundle has it too, and so has what is trained from them, taught by them or pruned from them: the
strictest of data, start and teacher wins. Of data of your own, say it: `fastseg-train --usage
commercial`. With `--require-usage commercial`, `fastseg-export`, `fastseg-run` and `remote_bench`
refuse all else in one line, exit code 1, before any work. No street network that ships here is
known to be cleared for commercial use; train one on data that is.
"""
NONE = "\nNo network ships yet.\n"
TABLE = """\
| name | parameters | GMACs | input | file | mIoU | mIoU near borders | trained on | weights |
|---|--:|--:|--:|--:|--:|--:|---|---|
"""
# Data set -> why its weights may be used so.
TERMS = {
    "camvid": "CamVid's authors name no licence; we treat these weights as research-only.",
    "synthetic": "No data of others went into them; the MIT licence of the code is theirs too.",
}
# Data set -> what a network of it is not good for.
LIMITS = {
    "camvid": "Other cities, cameras, weathers or seasons: its training pictures come from a few "
    "drives of one car through one English town. Classes with a low IoU below are not to be relied "
    "on, nor is any of it where safety depends on the answer.",
    "synthetic": "Real pictures: it has seen generated scenes alone. It is for trying the tools, "
    "and a start for training on pictures of your own that owes nothing to anybody's data.",
}


def render_page(networks: Sequence[Network], folder: Path) -> str:
    """Return docs/models.md.

    Args:
        networks: the shipped ones.
        folder: of their files.
    """
    name = pretrained.default()
    head = HEAD.format(name=name or "NAME")
    if name is None:
        return head + NONE
    cards = [render_card(network) for network in networks]
    return "\n".join([head, render_table(networks, folder), *cards])


def render_table(networks: Sequence[Network], folder: Path) -> str:
    """Return one row a network, as README shows them too."""
    return TABLE + "".join(_row(network, folder) for network in networks)


def _row(network: Network, folder: Path) -> str:
    info = network.info
    cost = profile(network.model, (info.width, info.height))
    megabytes = (folder / f"{network.name}.safetensors").stat().st_size / 1e6
    scores = info.evaluation
    return (
        f"| `{network.name}` | {cost.parameters / 1e6:.2f} M | {cost.macs / 1e9:.2f} "
        f"| {info.width}x{info.height} | {megabytes:.1f} MB | {scores['miou']:.3f} "
        f"| {scores['boundary_miou']:.3f} | {info.trained_on} | {describe_usage(info.usage)} |\n"
    )


def render_card(network: Network) -> str:
    """Return the card of one network."""
    info, training, scores = network.info, network.info.training, network.info.evaluation
    data = info.trained_on.split()[0]
    start = f"started from {training['init']}" if training.get("init") else "from scratch"
    teacher = f", taught by {training['teacher']}" if training.get("teacher") else ""
    made = f"{training['epochs']:g} epochs, seed {training['seed']}, {start}{teacher}"
    return f"""\
## {network.name}

- Weights: {describe_usage(info.usage)}. {TERMS[data]}
- Data: {info.trained_on}. Licence of the data: {info.data_licence}.
- Made by `{training["command"]}`: {made}, PyTorch {training["torch"]}.
  One run; another seed may differ by a point.
- Not good for: {LIMITS[data]}
- Half precision: mIoU {scores["miou"]:.4f}, {scores["float32_miou"]:.4f} before rounding.

{_class_table(info)}"""


def _class_table(info: CheckpointInfo) -> str:
    scores = info.evaluation
    rows = "".join(
        f"| {name} | {'-' if iou is None else format(iou, '.3f')} |\n"
        for name, iou in scores["iou"].items()
    )
    title = f"IoU, {scores['data']}, {scores['images']} images"
    return (
        f"| class | {title} |\n|---|--:|\n{rows}| mean | {scores['miou']:.3f} |\n"
        f"| mean, {scores['boundary_pixels']} px around borders | {scores['boundary_miou']:.3f} |\n"
    )
