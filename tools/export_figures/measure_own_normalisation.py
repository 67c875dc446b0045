"""Measure what int8 loses by a network's own normalisation, and print a table in Markdown.

    python tools/export_figures/measure_own_normalisation.py camvid:PATH

Takes small-camvid as if it had been trained with each normalisation: its first convolution is
rewritten for it, so that all of them are one network but at the picture's border. What differs in
the table is the step from the camera's bytes to the network's own numbers.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from fastseg_exporters.convert.child import Converted
from fastseg_exporters.convert.exporter import Conversion, Recipe, Request, load_exporter
from fastseg_exporters.convert.source import Calibration, NetworkSource
from fastseg_exporters.gate.record import describe_network, members, now, record
from fastseg_exporters.gate.verify import Verification
from fastseg_runtime.bundle.manifest import OutputSpec
from fastseg_runtime.bundle.writer import write_bundle
from fastseg_targets.target import load_target
from scoring import ALL_IMAGES, open_scenes, score, show_scores
from torch import nn

from fastseg import Network, open_network
from fastseg.normalization import NAMED, Normalization

TARGETS = ("cpu-int8", "jetson-int8")
OWN = {
    **NAMED,
    "caffe": Normalization((103.939, 116.779, 123.68), (57.375, 57.12, 58.395), 255, "bgr"),
}


def rewritten(own: Normalization) -> Network:
    """Return small-camvid for pictures normalised like that."""
    network = open_network("small-camvid")
    name, first = next((n, m) for n, m in network.model.named_modules() if type(m) is nn.Conv2d)
    weight_KC33 = first.weight.data.double()[:, [0, 1, 2] if own.color == "rgb" else [2, 1, 0]]
    mean_3, std_3 = (torch.tensor(x).double() * 255 / own.scale for x in (own.mean, own.std))
    info = network.info
    taking = nn.Conv2d(3, first.out_channels, first.kernel_size, first.stride, first.padding)
    taking.weight.data = (weight_KC33 * (std_3 / info.std)[:, None, None]).float()
    offset_K = weight_KC33.sum((2, 3)) @ ((mean_3 - info.mean) / info.std)
    taking.bias = nn.Parameter(offset_K.float() + (0 if first.bias is None else first.bias.data))
    network.model.set_submodule(name, taking)
    return replace(network, info=replace(info, normalization=own), name=name)


def measure(network: Network, target_name: str, data: str, images: int) -> Verification:
    """Convert, and run what came of it on test pictures."""
    target = load_target(target_name)
    scenes = open_scenes(network, data, images)
    with tempfile.TemporaryDirectory() as folder:
        out, bundle = Path(folder) / "0", Path(folder) / "own.fastseg"
        out.mkdir()
        recipe = Recipe(NetworkSource(network.name), Calibration(data))
        conversion = Conversion(recipe, target, "int8")
        made = load_exporter(target.exporter)(Request(network, conversion), out)
        converted = Converted(made, out, 0, 0)
        files = members(target, converted)
        manifest = describe_network(network, "own", OutputSpec(), now())
        artifact = record(conversion, converted, files)
        write_bundle(bundle, replace(manifest, artifacts=(artifact,)), dict(files))
        return score(bundle, target_name, scenes, selftest=False)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="camvid:PATH")
    parser.add_argument("--images", type=int, default=ALL_IMAGES, help="of the test split [all]")
    arguments = parser.parse_args()
    print("| trained with | target | PyTorch | mIoU | drop (95 %) | agreement |")
    print("|---|---|--:|--:|--:|--:|", flush=True)
    for name, own in OWN.items():
        for target in TARGETS:
            found = measure(rewritten(own), target, arguments.data, arguments.images)
            print(f"| {' | '.join((name, target, *show_scores(found)))} |", flush=True)


if __name__ == "__main__":
    main()
