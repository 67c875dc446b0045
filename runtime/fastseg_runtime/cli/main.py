"""fastseg-run: run a bundle on pictures, videos and cameras, and look into it."""

import argparse
import logging
import sys
import textwrap
from pathlib import Path
from typing import NoReturn, Optional, Sequence

from fastseg_runtime import __version__
from fastseg_runtime.arrays.command import (
    FAILED,
    UsageError,
    exit_code_help,
    limit_pictures,
    run_command,
)
from fastseg_runtime.bundle.usage import COMMERCIAL
from fastseg_runtime.frames.sources import parse_source

EXAMPLES = """\
examples:
  fastseg-run street.fastseg photo.jpg photos/ -o out    overlays into out/
  fastseg-run yours.onnx photo.jpg --normalization imagenet
  fastseg-run photo.jpg                                  with a network that ships with fastseg
  fastseg-run street.fastseg drive.mp4 -o drive-seg.mp4  a video with its classes drawn over it
  fastseg-run street.fastseg photos/ --format coco       regions, into segmented/annotations.json
  fastseg-run street.fastseg camera:0 -o camera.mp4      until Ctrl-C
  fastseg-run street.fastseg camera:0 --view 0.0.0.0:8080  seen from any browser in the network
  fastseg-run street.fastseg --inspect                   what it holds, and the evidence
  fastseg-run street.fastseg --verify                    hashes, and the self-test on this device
  fastseg-run street.fastseg --extract android-int8 -o app/assets
  fastseg-run --doctor street.fastseg                    what would run here, and what is missing
  fastseg-run --prepare street.fastseg                   build the TensorRT engine ahead of time

inputs besides files and folders, live ones until Ctrl-C:
  camera:0  /dev/video0  camera:0:1280x720@30   a camera; its size and rate
  rtsp://HOST/PATH  http://HOST/PATH            of the network; connects again when it is lost
  "v4l2src ! videoconvert ! appsink"            a GStreamer pipeline, if OpenCV has GStreamer
  frames/%06d.png  frames/%06d.png@10           numbered pictures; 25 a second, or as said
  -                                             a video on stdin: .mkv, .ts, Motion JPEG

FASTSEG_CACHE names the folder of built engines (default ~/.cache/fastseg), FASTSEG_CACHE_MB its
size limit.

"""
EXIT_CODES = {
    FAILED: "something failed (with several inputs: at least one, the others were run), or the "
    "weights are not for the use that --require-usage names"
}


class _Parser(argparse.ArgumentParser):
    """Wrong usage is an error like any other."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see fastseg-run --help")


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Run the command line and exit."""
    limit_pictures()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command("fastseg-run", lambda: make_parser().parse_intermixed_args(arguments), run)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = _Parser(
        prog="fastseg-run",
        description="Segment pictures, videos and cameras with a bundle made by fastseg-export.",
        epilog=EXAMPLES + textwrap.fill(exit_code_help(EXIT_CODES), 100),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "model",
        nargs="?",
        help="a bundle, a shipped network's name, or a bare .onnx, .safetensors or .pth; default: "
        "a network that ships with fastseg-edge, where that is installed",
    )
    add("inputs", nargs="*", help="pictures, folders of pictures, videos, cameras: see below")
    add("-o", "--output", type=Path, default=Path("segmented"), help="folder or file to write")
    add("--save", choices=("overlay", "mask", "both"), help="what to write; default: overlay")
    add(
        "--format",
        choices=("png", "coco"),
        default="png",
        help="of masks; coco: the regions of all inputs in one annotations.json, and overlays only "
        "if --save asks for them",
    )
    add(
        "--view",
        metavar="HOST:PORT",
        nargs="?",
        const="127.0.0.1",
        help="show the run in a browser; default: of this machine alone, on any free port. Who has "
        "the address that is printed sees the pictures",
    )
    add("--steady", action="store_true", help="damp the flicker of videos (needs a confidence)")
    add("--overwrite", action="store_true", help="replace outputs that are there already")
    add("--target", help="use this artifact of the bundle")
    add("--backend", default="auto", help="use this engine, as onnxruntime")
    add("--device", default="auto", help="cpu, cuda, or another name that the engine knows")
    add("--threads", type=_positive, help="of each engine; default: its own choice")
    add(
        "--engines",
        type=_positive,
        default=1,
        help="frames to work on at the same time; on a CPU one per core is best for video files",
    )
    own = parser.add_argument_group("an ONNX file that fastseg-export did not make")
    own.add_argument("--normalization", help="what it takes: imagenet, unit (0 to 1), centred")
    own.add_argument("--color", choices=("rgb", "bgr"), help="order of its channels")
    own.add_argument("--size", metavar="WxH", help="where it takes any")
    own.add_argument(
        "--fit",
        metavar="stretch|letterbox",  # not FITS, whose module waits for numpy: help must not
        help="how frames come into it; default: stretch",
    )
    own.add_argument("--output-name", help="which of its outputs are the logits or ids")
    own.add_argument("--threshold", type=float, help="with one logit: the second class above it")
    add(
        "--require-usage",
        choices=(COMMERCIAL,),
        help="refuse weights that are not known to allow it, before anything runs",
    )
    add("--json", action="store_true", help="print one JSON document on stdout")
    add("--version", action="version", version=f"fastseg-runtime {__version__}")
    actions = parser.add_mutually_exclusive_group()
    action = actions.add_argument
    action("--inspect", action="store_true", help="print what the bundle holds")
    action("--verify", action="store_true", help="check hashes and run the self-test here")
    action("--extract", metavar="TARGET", help="write a target's files and contract.json into -o")
    action("--doctor", action="store_true", help="print what can run on this device")
    action(
        "--prepare", action="store_true", help="build and test the engine, so that starts are fast"
    )
    action("--cache", nargs="?", const="show", choices=("show", "clear"), help="the built engines")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text!r}")
    return int(text)


def run(options: argparse.Namespace) -> int:
    """Do what was asked and return the exit code."""
    from fastseg_runtime.cli import examine, run_inputs  # numpy and the rest: not for --help

    if options.cache:
        return examine.show_or_clear_cache(options)
    if options.doctor:
        if options.model is not None:
            examine.check_usage(options)
        return examine.show_device(options)
    for name, action in examine.OF_A_BUNDLE.items():
        if getattr(options, name):
            if options.model is None:
                raise UsageError(f"--{name} needs a bundle")
            if options.inputs:
                given = " ".join(parse_source(text).shown for text in options.inputs)
                raise UsageError(f"--{name} takes no inputs, got {given}")
            examine.check_usage(options)
            return action(options)
    view = options.view or ""
    if Path(view).is_file() or (run_inputs.is_input(view) and not Path(view).is_dir()):
        raise UsageError(
            f"--view took {parse_source(view).shown} as its address; write --view behind the "
            "inputs, or --view=HOST:PORT"
        )
    if options.model and run_inputs.is_input(options.model):
        options.model, options.inputs = None, [options.model, *options.inputs]
    if not options.inputs:
        raise UsageError(
            "name a picture, folder, video or camera:0 (and a bundle before it, if you have one)"
        )
    return run_inputs.run_inputs(options)


if __name__ == "__main__":
    main()
