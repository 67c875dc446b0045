"""fastseg-export: a network in the formats of its devices, each judged, in one bundle."""

import json
import signal
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer
from fastseg_runtime.arrays.image import parse_size
from fastseg_runtime.bundle.file_kind import file_kind
from fastseg_runtime.bundle.reader import BundleError
from fastseg_runtime.bundle.usage import COMMERCIAL
from fastseg_runtime.engines.opening import NoBackendError
from fastseg_targets.profile import (
    Target,
    load_target,
    parse_target,
    select_targets,
    target_names,
)
from rich.console import Console

import fastseg
from fastseg import CheckpointError
from fastseg.data import DataError
from fastseg.data.class_list import read_classes
from fastseg.deploy import OutputKind
from fastseg.network import name_of
from fastseg.normalization import parse_normalization
from fastseg_exporters.convert.progress import ExportProgress
from fastseg_exporters.convert.source import Calibration, NetworkSource, default_checkpoint
from fastseg_exporters.export import Outcome, Plan, export_bundle
from fastseg_exporters.gate.compare import compare_bundle
from fastseg_exporters.tables import (
    artifact_table,
    bound_lines,
    comparison_table,
    missing_lines,
    slower_than_float,
    summary,
    target_rows,
    target_table,
)

log = Console(stderr=True, highlight=False)
OUTPUTS: dict[str, OutputKind] = {"classes": "classes", "logits": "logits"}
MASK_STRIDES = (1, 2, 4)
DEFAULT_TARGET = "cpu-fp32"
app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def export(
    network: Annotated[
        str | None,
        typer.Argument(
            help="A checkpoint, the name of shipped weights, or package.module:factory. "
            "Default: the newest runs/*/model.safetensors, else the shipped network."
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="A target, a glob ('android-*'), all, or a TOML file; may be repeated."),
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The bundle.")] = None,
    size: Annotated[str | None, typer.Option(help="WxH of the input.")] = None,
    calibration: Annotated[
        str | None, typer.Option(help="Images for int8: a data set, or a folder of images.")
    ] = None,
    calibration_images: Annotated[int, typer.Option(min=1, help="How many.")] = 64,
    verify: Annotated[
        str | None, typer.Option(help="A labelled data set to verify on, its val split.")
    ] = None,
    verify_images: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    output: Annotated[str, typer.Option(help="classes or logits.")] = "classes",
    mask_stride: Annotated[int, typer.Option(help="1, 2 or 4: a smaller class map.")] = 1,
    classes: Annotated[Path | None, typer.Option(help="classes.txt of your own network.")] = None,
    weights: Annotated[Path | None, typer.Option(help="State dict of your own network.")] = None,
    normalization: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|TOML",
            help="What your own network was trained with: imagenet, unit (0 to 1), centred "
            "((x - 128) / 64, the default), or a file with mean, std and scale.",
        ),
    ] = None,
    color: Annotated[
        str | None, typer.Option(help="rgb or bgr: what your own network takes.")
    ] = None,
    output_name: Annotated[
        str, typer.Option(help="Which output of your own network are its logits: out, 1, aux.0.")
    ] = "",
    threshold: Annotated[
        float, typer.Option(help="Of your own network with one logit: the second class above it.")
    ] = 0.5,
    strict: Annotated[bool, typer.Option("--strict", help="Stop where a gate fails.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Skip what the bundle has.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace another bundle.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds for each conversion.")] = 900.0,
    require_usage: Annotated[
        str | None,
        typer.Option(help="commercial: refuse weights that are not known to allow it."),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(help="Instead of exporting, measure all artifacts of a bundle here."),
    ] = None,
    list_targets: Annotated[bool, typer.Option("--list-targets", help="Show them.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Export a network for devices, judge each artifact, and write one bundle.

    fastseg-export runs/street/model.safetensors --target jetson-fp16 --target cpu-int8

    Each artifact is run beside PyTorch by its own engine; Core ML packages are evaluated by an
    interpreter of ours where there is no macOS, and ONNX for TensorRT is run by ONNX Runtime.

    Without --calibration and --verify it takes the images of the training, if the checkpoint
    records them and they are still there.

    Exit codes: 0 done, 1 a target failed (the others are in the bundle) or the weights are not
    for the use that --require-usage names, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    if version:
        print(f"fastseg-export {fastseg.__version__}")
        return
    if list_targets:
        _list_targets(as_json)
        return
    _check_options(output, mask_stride, timeout)
    _check_usage(require_usage, compare)
    size_wh = _size(size)
    named = read_classes(classes)[0] if classes else None
    taken = parse_normalization(normalization, color)

    def named_network(spec: str) -> NetworkSource:
        own = (taken, output_name, threshold)
        return NetworkSource(spec, named, _text(weights), size_wh, *own)

    if compare is not None:
        source = named_network(network) if network else None
        _compare(compare, source, verify, verify_images, as_json)
        return
    targets = _targets(target or [DEFAULT_TARGET])
    source = named_network(network or _default_network())
    plan = Plan(
        source=source,
        targets=tuple(targets),
        out=out or Path(f"{name_of(source.spec)}.fastseg"),
        calibration=Calibration(calibration, calibration_images),
        verify_data=verify,
        verify_images=verify_images,
        output=OUTPUTS[output],
        mask_stride=mask_stride,
        strict=strict,
        resume=resume,
        force=force,
        timeout_s=timeout,
        require_usage=require_usage,
    )
    with redirect_stdout(sys.stderr), ExportProgress(log) as progress:  # networks may print
        outcome = export_bundle(plan, progress.tell, progress.show)
    _report(plan, outcome, as_json)
    raise typer.Exit(1 if outcome.failed else 0)


def _check_options(output: str, mask_stride: int, timeout_s: float) -> None:
    if output not in OUTPUTS:
        raise typer.BadParameter(f"--output is {output!r}; choose one of {', '.join(OUTPUTS)}")
    if mask_stride not in MASK_STRIDES:
        raise typer.BadParameter(f"--mask-stride is {mask_stride}; choose one of {MASK_STRIDES}")
    if not timeout_s > 0:
        raise typer.BadParameter(f"--timeout is {timeout_s}; expected seconds above 0")


def _check_usage(wanted: str | None, compare: Path | None) -> None:
    if wanted not in (None, COMMERCIAL):
        raise typer.BadParameter(f"--require-usage is {wanted!r}; expected {COMMERCIAL}")
    if wanted is not None and compare is not None:
        raise typer.BadParameter("--require-usage is for exports, --compare makes none")


def _targets(patterns: list[str]) -> list[Target]:
    files = [Path(pattern) for pattern in patterns if pattern.endswith(".toml")]
    names = [pattern for pattern in patterns if not pattern.endswith(".toml")]
    try:
        return [*select_targets(names), *map(_own_target, files)]
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error


def _own_target(file: Path) -> Target:
    try:
        return parse_target(file.stem, file.read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is {file_kind(file)}; expected a target's TOML") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _default_network() -> str:
    network, origin = default_checkpoint(Path.cwd())
    log.print(f"no network named: taking {network}, {origin}", markup=False, soft_wrap=True)
    return network


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(f"--size: {error}") from error


def _report(plan: Plan, outcome: Outcome, as_json: bool) -> None:
    manifest = outcome.manifest
    if as_json:
        document = {
            "bundle": str(plan.out) if manifest.artifacts else None,
            "usage": manifest.model.usage,
            "artifacts": [summary(artifact) for artifact in manifest.artifacts],
            "failed": outcome.failed,
            "skipped": outcome.skipped,
        }
        print(json.dumps(document, indent=1))
        return
    if manifest.artifacts:
        Console().print(artifact_table(manifest), soft_wrap=True)
        for line in (*bound_lines(manifest), *slower_than_float(manifest)):
            log.print(line, markup=False, soft_wrap=True)
        print(f"{plan.out} ({plan.out.stat().st_size / 1e6:.1f} MB)")
    for name, why in outcome.failed.items():
        log.print(f"failed: {name}: {why}", markup=False, soft_wrap=True)


def _list_targets(as_json: bool) -> None:
    targets = [load_target(name) for name in target_names()]
    if as_json:
        print(json.dumps(target_rows(targets), indent=1))
    else:
        Console().print(target_table(targets), soft_wrap=True)


def _compare(
    bundle: Path, source: NetworkSource | None, data: str | None, images: int, as_json: bool
) -> None:
    with redirect_stdout(sys.stderr), ExportProgress(log) as progress:
        network = source.open() if source else None
        found = compare_bundle(bundle, network, data, images, progress.tell, progress.show)
    if as_json:
        print(json.dumps(found.to_table(), indent=1))
    else:
        Console().print(comparison_table(found), soft_wrap=True)
        for line in missing_lines(found):
            print(line)


def main() -> None:
    """Run the command; every error is one line and an exit code."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # clean up too
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except (CheckpointError, DataError, BundleError, NoBackendError, ValueError, OSError) as error:
        log.print(f"fastseg-export: {error}", markup=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
