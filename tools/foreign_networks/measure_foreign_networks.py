"""Export networks that others wrote to every target, and print what came of each in Markdown.

    FASTSEG_FOREIGN=CHECKOUTS PYTHONPATH=tools/foreign_networks \
        python tools/foreign_networks/measure_foreign_networks.py ddrnet_23_slim pidnet_s

Logits are exported, so that their error can stand beside the agreement: the largest difference to
the module's own logits, relative to the largest of these. The margin is how far a pixel's best
class is from its second, as the median relative to the same: where errors come near it, classes
change. Networks without weights (--weights) get their norms' statistics from generated streets,
and a last layer that a linear regression found for their labels: of chance alone every class map
would hang on rounding.
"""

import argparse
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import foreign_networks
import numpy as np
import torch
import torch.nn.functional as F
from fastseg_exporters.convert import child
from fastseg_exporters.convert.exporter import Recipe
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.export import Plan, export_bundle
from fastseg_exporters.gate.workshop import proving_backend
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays.image import parse_size
from fastseg_runtime.bundle.manifest import Artifact, numbered_classes
from fastseg_runtime.engines.selection import made_for
from fastseg_targets.target import select_targets
from rich.console import Console
from torch import Tensor, nn

from fastseg import CheckpointError, Network
from fastseg.data import Dataset, open_dataset
from fastseg.normalization import parse_normalization

HEADINGS = (
    "network", "target", "made", "logits' error", "margin", "agreement", "drop", "s", "MB",
    "ms here",
)  # fmt: skip
FITTED_ON, VERIFIED_ON, CALIBRATED_ON = 8, 6, 8  # pictures; a converter's faults show in one
RIDGE = 1e-3  # of the mean square of a feature
log = Console(stderr=True, highlight=False)


def fit(net: nn.Module, data: Dataset) -> None:
    """Give norms statistics and the last layer weights, so that classes lie apart."""
    samples = [data[index] for index in range(FITTED_ON)]
    x_N3HW = torch.from_numpy(np.stack([s.image_HW3 for s in samples])).permute(0, 3, 1, 2)
    labels_NHW = torch.from_numpy(np.stack([s.label_HW for s in samples]))
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum, norm.training = None, not isinstance(norm, nn.SyncBatchNorm)
        if not norm.weight.detach().any():
            nn.init.ones_(norm.weight)  # of a branch that begins as nothing
    kept: list[Tensor] = []
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    last = [layer for layer in convolutions if layer.out_channels == len(data.classes)][-1:]
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs: kept.append(inputs[0]))
        for layer in last
    ]
    with torch.inference_mode():
        for _ in range(2):  # statistics first, then features under them
            kept.clear()
            net((x_N3HW.float() - 128) / 64)
            net.eval()
    for hook in hooks:
        hook.remove()
    if last:  # none in networks that end in a transposed convolution
        _regress(last[0], kept[-1], labels_NHW)


def _regress(layer: nn.Conv2d, x_NChw: Tensor, labels_NHW: Tensor) -> None:
    """Set a convolution to what comes nearest to 1 for the class of each pixel, 0 for others."""
    columns_NDL = F.unfold(x_NChw, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
    features_LD = columns_NDL.transpose(1, 2).flatten(0, 1)
    features_LD = torch.cat([features_LD, torch.ones(len(features_LD), 1)], 1)
    rows, columns = x_NChw.shape[2:]
    small_NHW = F.interpolate(labels_NHW[:, None].float(), (rows, columns))[:, 0].long().flatten()
    known = small_NHW < layer.out_channels
    wanted_LK = F.one_hot(small_NHW[known], layer.out_channels).float()
    a_LD = features_LD[known]
    gram_DD = a_LD.T @ a_LD
    gram_DD += RIDGE * gram_DD.diagonal().mean() * torch.eye(len(gram_DD))
    found_DK = torch.linalg.solve(gram_DD, a_LD.T @ wanted_LK)
    with torch.no_grad():
        layer.weight.copy_(found_DK[:-1].T.reshape(layer.weight.shape))
        if layer.bias is not None:
            layer.bias.copy_(found_DK[-1])


def logits_error(bundle: Path, artifact: Artifact, network: Network, data: Dataset) -> float:
    """Return the largest error of an artifact's logits on two pictures, relative to the largest."""
    errors = []
    with RealtimeSegmentation(bundle, proving_backend(artifact), target=artifact.target) as session:
        for index in range(2):
            image_HW3 = np.ascontiguousarray(data[index].image_HW3)
            expected_Khw = network.logits(torch.from_numpy(image_HW3)[None])[0].numpy()
            found_Khw = session.logits(image_HW3)
            errors.append(np.abs(found_Khw - expected_Khw).max() / np.abs(expected_Khw).max())
    return float(max(errors))


def margin(network: Network, data: Dataset) -> float:
    """Return the median distance of the two best classes on two pictures, relative to the most."""
    found = []
    for index in range(2):
        image_HW3 = np.ascontiguousarray(data[index].image_HW3)
        logits_1Khw = network.logits(torch.from_numpy(image_HW3)[None])
        best_2 = logits_1Khw.topk(2, dim=1).values
        found.append(float((best_2[:, 0] - best_2[:, 1]).median() / logits_1Khw.abs().max()))
    return min(found)


def row(bundle: Path, artifact: Artifact, network: Network, data: Dataset) -> tuple[str, ...]:
    """Return an artifact's row behind the network's name."""
    found, took = artifact.verification or {}, artifact.extra["export"]
    engine = made_for(artifact)
    timed = engine in ("onnxruntime", "litert")
    drop = found.get("miou_drop")
    return (
        artifact.target,
        artifact.precision,
        f"{logits_error(bundle, artifact, network, data):.1e}",
        f"{margin(network, data):.1e}",
        f"{100 * found['agreement']:.2f}",
        "-" if drop is None else f"{100 * drop:+.2f}",
        str(took["conversion_seconds"]),
        str(took["peak_memory_mb"]),
        f"{found['latency_ms']:.0f}" if timed else "-",
    )


def measure(name: str, given: argparse.Namespace, folder: Path) -> None:
    """Export a network and print its rows."""
    size = parse_size(given.size)
    streets = f"synthetic:size={given.size},train={FITTED_ON},val={VERIFIED_ON},test=2"
    data = open_dataset(streets, "val")
    classes, weights, labelled = numbered_classes(given.classes), given.weights, None
    if weights is None:
        fitting = open_dataset(streets, "train")
        classes, labelled, weights = fitting.classes, streets, str(folder / f"{name}.pth")
        torch.manual_seed(0)
        net = getattr(foreign_networks, name)(len(classes)).eval()
        fit(net, fitting)
        torch.save(net.state_dict(), weights)
    own = parse_normalization(given.normalization, None)
    source = NetworkSource(f"foreign_networks:{name}", classes, weights, size, own)
    recipe = Recipe(source, Calibration(streets, CALIBRATED_ON), output="logits")
    out = folder / f"{name}.fastseg"
    targets = tuple(select_targets(given.target))
    plan = Plan(recipe, targets, out, labelled, VERIFIED_ON, strict=given.strict)
    try:
        outcome = export_bundle(plan, lambda line: log.print(line, markup=False))
    except (CheckpointError, ValueError) as error:
        print(f"| {name} | all | refused: {' '.join(str(error).split())} |" + " |" * 7, flush=True)
        return
    rows = {name: f"refused: {' '.join(why.split())[:300]}" for name, why in outcome.failed.items()}
    for artifact in outcome.manifest.artifacts:
        rows[artifact.target] = " | ".join(row(out, artifact, source.open(), data))
    for target in targets:
        cells = rows[target.name]
        if cells.startswith("refused"):
            cells = f"{target.name} | {cells.replace('|', '/')} |" + " |" * 6
        print(f"| {name} | {cells} |", flush=True)


def convert_here() -> None:
    """Let conversions happen in this process: a busy machine imports each converter once."""

    def run_child(folder: Path, timeout_s: float, progress: object) -> int:
        with redirect_stdout(sys.stderr):
            return child.main(folder)

    child.run_child = run_child


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("networks", nargs="+", help="functions of foreign_networks.py")
    parser.add_argument("--size", default="320x200", help="WxH: odd sides at 1/8 and below")
    parser.add_argument("--target", action="append", help="as of fastseg-export; default: all")
    parser.add_argument("--weights", help="a state dict; without it, see above")
    parser.add_argument("--classes", type=int, default=19, help="that the weights tell apart")
    parser.add_argument("--normalization", help="as of fastseg-export")
    parser.add_argument("--strict", action="store_true", help="no step of the ladder")
    parser.add_argument(
        "--here", action="store_true", help="convert in this process; MB are then of all of it"
    )
    given = parser.parse_args()
    if given.here:
        convert_here()
    given.target = given.target or ["all"]
    print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in given.networks:
            measure(name, given, Path(folder))


if __name__ == "__main__":
    main()
