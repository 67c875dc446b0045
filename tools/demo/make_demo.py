"""The main job in a few minutes: train on generated streets, export, judge, run, report.

Runs the three commands as a user would, in the folder demo/, then writes demo/report.html.
"""

import argparse
import html
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from compare_models.report import picture, table_rows
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays.image import encode_rgb
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.arrays.terminal import TextTable
from fastseg_runtime.bundle.manifest import ClassInfo, palette
from fastseg_runtime.frames.draw import overlay
from rich.console import Console

from fastseg.data import open_dataset

DATA = "synthetic:size=320x240,train=400,val=40,test=40"
TARGETS = ("cpu-fp32", "cpu-int8", "cpu-int8-weights")
SCENES = 4
BENCHMARK_FRAMES = 60
SCRIPTS = Path(sys.executable).parent  # where pip put the commands of this environment
HEADINGS = ("target", "precision", "MB", "mIoU", "drop", "agreement", "ms", "FPS")
KINDS = ("image", "truth", "prediction")
TEMPLATE = Path(__file__).with_name("report_template.html")
log = Console(stderr=True, highlight=False)


def run(folder: Path, *command: str) -> str:
    """Run one of our commands; its progress shows on stderr, its result is returned."""
    log.print(f"$ {' '.join(command)}", markup=False, soft_wrap=True, style="bold")
    program = str(SCRIPTS / command[0])
    done = subprocess.run([program, *command[1:]], cwd=folder, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{command[0]} failed with exit code {done.returncode}; see above")
    return done.stdout


def train(folder: Path, minutes: float) -> None:
    """Train nano on generated street scenes."""
    options = ["--data", DATA, "--model", "nano", "--crop", "256x192", "--minutes", str(minutes)]
    run(folder, "fastseg-train", *options, "--name", "demo", "--force")


def export(folder: Path) -> list[dict[str, Any]]:
    """Export the ONNX targets and return what was measured of each."""
    targets = [word for target in TARGETS for word in ("--target", target)]
    options = ["-o", "demo.fastseg", "--calibration", DATA, "--verify", DATA, "--force", "--json"]
    text = run(folder, "fastseg-export", "runs/demo/model.safetensors", *targets, *options)
    artifacts: list[dict[str, Any]] = json.loads(text)["artifacts"]
    return artifacts


def run_artifact(bundle: Path, artifact: dict[str, Any]) -> list[str]:
    """Time an artifact in the device's runtime; return its row below HEADINGS."""
    with RealtimeSegmentation(bundle, target=artifact["target"]) as session:
        times = session.benchmark(BENCHMARK_FRAMES, warmup=5)
    return [
        artifact["target"],
        artifact["precision"],
        f"{artifact['bytes'] / 1e6:.2f}",
        f"{100 * artifact['miou']:.1f} %",
        f"{100 * artifact['miou_drop']:+.2f}",
        f"{100 * artifact['agreement']:.2f} %",
        f"{times['p50_ms']:.1f}",
        f"{times['fps']:.0f}",
    ]


def draw_scenes(bundle: Path) -> dict[str, list[Array]]:
    """Run unseen scenes: image, truth and prediction side by side, by the scene's name."""
    dataset = open_dataset(DATA, "test")
    colors_K3 = palette(dataset.classes)
    strips = {}
    with RealtimeSegmentation(bundle) as session:
        for index in range(SCENES):
            sample = dataset[index]
            maps = (sample.label_HW, session.infer(sample.image_HW3))
            drawn = [overlay(sample.image_HW3, ids_HW, colors_K3, 0.6) for ids_HW in maps]
            strips[sample.name] = [sample.image_HW3, *drawn]
    return strips


def write_report(
    path: Path,
    table: TextTable,
    strips: Mapping[str, Sequence[Array]],
    curves: Path,
    classes: Sequence[ClassInfo],
) -> None:
    """Write the report.

    Strips are pictures of each scene by its name, one of each of KINDS, uint8 RGB (H, W, 3);
    curves are a PNG of the training.
    """
    page = Template(TEMPLATE.read_text("utf-8")).substitute(
        table=table_rows(table),
        curves=picture("loss and mIoU over the training", curves.read_bytes()),
        legend="".join(map(_legend_entry, classes)),
        strips="\n".join(_strip(*strip) for strip in strips.items()),
    )
    path.write_text(page, "utf-8")


def _legend_entry(entry: ClassInfo) -> str:
    color = "rgb({}, {}, {})".format(*entry.color)
    return f'<span><i style="background: {color}"></i>{html.escape(entry.name)}</span>'


def _strip(name: str, pictures: Sequence[Array]) -> str:
    pairs = zip(pictures, KINDS, strict=True)
    images = (picture(f"{name}: {kind}", encode_rgb(image_HW3)) for image_HW3, kind in pairs)
    return f'<div class="strip">{"".join(images)}</div>'


def main() -> None:
    """Train, export, run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="of training [2]")
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="for all results [demo]")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    train(folder, arguments.minutes)
    bundle = folder / "demo.fastseg"
    rows = [run_artifact(bundle, artifact) for artifact in export(folder)]
    curves = folder / "runs/demo/curves.png"
    classes = open_dataset(DATA, "test").classes
    title = "the demo's artifacts, in the runtime on this machine"
    table = TextTable(HEADINGS, rows, title, right=range(1, len(HEADINGS)))
    write_report(folder / "report.html", table, draw_scenes(bundle), curves, classes)
    Console().print(table, soft_wrap=True)
    print(f"Open {folder / 'report.html'} in a browser; the bundle is {bundle}")


if __name__ == "__main__":
    main()
