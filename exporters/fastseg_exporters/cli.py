"""fastseg-export: a network in the formats of its devices, each judged, in one bundle."""

import json
import sys
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from fastseg_runtime.arrays.command import (
    DONE,
    FAILED,
    UsageError,
    complain,
    exit_code_help,
    run_command,
)
from fastseg_runtime.arrays.image import parse_size
from fastseg_runtime.bundle.file_kind import file_kind
from fastseg_runtime.bundle.reader import open_bundle
from fastseg_runtime.bundle.usage import COMMERCIAL
from fastseg_runtime.engines.engine import ENGINES
from fastseg_targets.device import load_device
from fastseg_targets.target import (
    Target,
    load_target,
    parse_target,
    select_targets,
    target_names,
)
from rich.console import Console

import fastseg
from fastseg.command_options import (
    ColorOption,
    FitOption,
    NormalizationOption,
    OutputNameOption,
    ThresholdOption,
)
from fastseg.data.class_list import read_classes
from fastseg.deploy import OutputKind
from fastseg.network import name_of
from fastseg.normalization import parse_normalization
from fastseg_exporters.convert.exporter import Recipe, exporters, find_exporter
from fastseg_exporters.convert.progress import ExportProgress
from fastseg_exporters.convert.source import Calibration, NetworkSource, default_checkpoint
from fastseg_exporters.export import Outcome, Plan, export_bundle
from fastseg_exporters.gate.compare import compare_bundle
from fastseg_exporters.gate.referees.referee import Referee, RefereeError, select_referees
from fastseg_exporters.tables import (
    artifact_table,
    bound_lines,
    class_lines,
    comparison_table,
    confidence_lines,
    missing_lines,
    referee_lines,
    slower_than_float,
    summary,
    target_rows,
    target_table,
)

if TYPE_CHECKING:
    from fastseg_exporters.tensorrt.to_deepstream import Written

OUTPUTS: dict[str, OutputKind] = {"classes": "classes", "logits": "logits"}
MASK_STRIDES = (1, 2, 4)
OF_EXPORTS = (
    *("target", "out", "calibration", "calibration_images", "output", "mask_stride", "confidence"),
    *("strict", "resume", "force", "timeout", "require_usage", "referee", "deepstream"),
)
DEFAULT_TARGET = "cpu-fp32"
EXIT_CODES = {
    FAILED: "a target failed (the others are in the bundle), or the weights are not for the use "
    "that --require-usage names"
}
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(epilog=exit_code_help(EXIT_CODES))
@dataclass(frozen=True)
class Options:
    """Export a network for devices, judge each artifact, and write one bundle.

    fastseg-export runs/street/model.safetensors --target jetson-fp16 --target cpu-int8

    Each artifact is run beside PyTorch by its own engine; Core ML packages are evaluated by an
    interpreter of ours where there is no macOS, and ONNX for TensorRT is run by ONNX Runtime.

    Without --calibration and --verify it takes the images of the training, if the checkpoint
    records them and they are still there.
    """

    network: Annotated[
        str | None,
        typer.Argument(
            help="A checkpoint, the name of shipped weights, package.module:factory, or an ONNX "
            "file. Default: the newest runs/*/model.safetensors, else the shipped network."
        ),
    ] = None
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="A target, a glob ('android-*'), all, or a TOML file; may be repeated. "
            f"[{DEFAULT_TARGET}]"
        ),
    ] = None
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The bundle.")] = None
    size: Annotated[str | None, typer.Option(help="WxH of the input.")] = None
    fit: FitOption = None
    calibration: Annotated[
        str | None, typer.Option(help="Images for int8: a data set, or a folder of images.")
    ] = None
    calibration_images: Annotated[int, typer.Option(min=1, help="How many.")] = Calibration.count
    verify: Annotated[
        str | None, typer.Option(help="A labelled data set to verify on, its val split.")
    ] = None
    verify_images: Annotated[int, typer.Option(min=1, help="How many.")] = Plan.verify_images
    output: Annotated[str, typer.Option(help="classes or logits.")] = "classes"
    mask_stride: Annotated[int, typer.Option(help="1, 2 or 4: a smaller class map.")] = 1
    confidence: Annotated[
        bool,
        typer.Option("--confidence", help="Also give how sure it is, calibrated on --verify."),
    ] = False
    classes: Annotated[
        Path | None, typer.Option(help="classes.txt of your own network or ONNX file.")
    ] = None
    weights: Annotated[Path | None, typer.Option(help="State dict of your own network.")] = None
    normalization: NormalizationOption = None
    color: ColorOption = None
    output_name: OutputNameOption = None
    threshold: ThresholdOption = None
    strict: Annotated[bool, typer.Option("--strict", help="Stop where a gate fails.")] = False
    resume: Annotated[bool, typer.Option("--resume", help="Skip what the bundle has.")] = False
    force: Annotated[bool, typer.Option("--force", help="Replace another bundle.")] = False
    timeout: Annotated[float, typer.Option(help="Seconds for each conversion.")] = Plan.timeout_s
    require_usage: Annotated[
        str | None,
        typer.Option(help="commercial: refuse weights that are not known to allow it."),
    ] = None
    referee: Annotated[
        str | None,
        typer.Option(
            help="NAME,NAME or all that are installed (make referees): toolchains of vendors, "
            "that judge the artifacts without a device."
        ),
    ] = None
    deepstream: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also write a configuration of DeepStream's nvinfer for each jetson-* target, "
            "with its network, labels and colours.",
        ),
    ] = None
    compare: Annotated[
        Path | None,
        typer.Option(help="Instead of exporting, measure all artifacts of a bundle here."),
    ] = None
    list_targets: Annotated[bool, typer.Option("--list-targets", help="Show them.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False

    def source(self, spec: str) -> NetworkSource:
        """Return a network by its name and by what is said of it."""
        return NetworkSource(
            spec,
            read_classes(self.classes)[0] if self.classes else None,
            None if self.weights is None else str(self.weights),
            None if self.size is None else parse_size(self.size),
            parse_normalization(self.normalization, self.color),
            self.output_name or NetworkSource.output_name,
            NetworkSource.threshold if self.threshold is None else self.threshold,
            self.fit,
        )


def carry_out(options: Options) -> int:
    """Do what was asked and return the exit code."""
    if options.version:
        print(f"fastseg-export {fastseg.__version__}")
        return DONE
    if options.list_targets:
        return _list_targets(options.as_json)
    _check(options)
    return _export(options) if options.compare is None else _compare(options, options.compare)


def _check(options: Options) -> None:
    if options.output not in OUTPUTS:
        raise UsageError(f"--output is {options.output!r}; choose one of {', '.join(OUTPUTS)}")
    if options.mask_stride not in MASK_STRIDES:
        raise UsageError(f"--mask-stride is {options.mask_stride}; choose one of {MASK_STRIDES}")
    if options.confidence and options.output == "logits":
        raise UsageError("--confidence stands beside classes; leave --output logits out")
    if options.resume and options.force:
        raise UsageError("--resume keeps what the bundle has, --force nothing; leave one out")
    if not options.timeout > 0:
        raise UsageError(f"--timeout is {options.timeout}; expected seconds above 0")
    if options.require_usage not in (None, COMMERCIAL):
        raise UsageError(f"--require-usage is {options.require_usage!r}; expected {COMMERCIAL}")
    for option in OF_EXPORTS if options.compare is not None else ():
        if getattr(options, option) != getattr(Options, option):
            name = option.replace("_", "-")
            raise UsageError(f"--{name} is for exports, --compare makes none")
    if options.deepstream is not None and options.output == "logits":
        raise UsageError("--deepstream needs class maps; leave --output logits out")


def _export(options: Options) -> int:
    targets = _targets(options.target or [DEFAULT_TARGET])
    source = options.source(options.network or _default_network())
    plan = Plan(
        recipe=Recipe(
            source,
            Calibration(options.calibration, options.calibration_images),
            OUTPUTS[options.output],
            options.mask_stride,
        ),
        targets=tuple(targets),
        out=options.out or Path(f"{name_of(source.spec)}.fastseg"),
        verify_data=options.verify,
        verify_images=options.verify_images,
        confidence=options.confidence,
        strict=options.strict,
        resume=options.resume,
        force=options.force,
        timeout_s=options.timeout,
        require_usage=options.require_usage,
        referees=_referees(options.referee),
    )
    if options.deepstream is not None:
        _check_deepstream(options.deepstream, targets)
    with redirect_stdout(sys.stderr), ExportProgress() as progress:  # networks may print
        outcome = export_bundle(plan, progress.tell, progress.show)
    written = _deepstream(plan, outcome, options.deepstream) if options.deepstream else []
    _report(plan, outcome, written, options.as_json)
    return FAILED if outcome.failed else DONE


def _check_deepstream(folder: Path, targets: list[Target]) -> None:
    """Refuse what would come to nothing before minutes are spent."""
    made = exporters()
    if not any(made[target.exporter].engine == ENGINES["tensorrt"].name for target in targets):
        raise UsageError("--deepstream is for TensorRT; add --target jetson-fp16")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--deepstream is {folder}, which is no folder; name another one")


def _deepstream(plan: Plan, outcome: Outcome, folder: Path) -> "list[Written]":
    # Here, so that help waits for no engine.
    from fastseg_exporters.tensorrt.to_deepstream import write_deepstream

    made = {target.name for target in plan.targets} - set(outcome.failed)
    if not made:
        return []
    try:
        with open_bundle(plan.out) as bundle:
            return write_deepstream(bundle, made, folder)
    except (ValueError, OSError) as error:  # the bundle is whole, and is told of
        outcome.failed["--deepstream"] = str(error)
        return []


def _targets(patterns: list[str]) -> list[Target]:
    files = [Path(pattern) for pattern in patterns if pattern.endswith(".toml")]
    names = [pattern for pattern in patterns if not pattern.endswith(".toml")]
    try:
        targets = [*select_targets(names), *map(_own_target, files)]
        for name, count in Counter(target.name for target in targets).items():
            if count > 1:
                raise UsageError(f"{count} targets are called {name}; give a file another name")
        for target in targets:  # before minutes are spent
            made = find_exporter(target.exporter).precisions or target.ladder
            if wrong := [name for name in target.ladder if name not in made]:
                raise UsageError(f"{target.name}: {target.exporter} makes {made}, not {wrong}")
            for device in target.devices:
                load_device(device)
        return targets
    except (ValueError, OSError) as error:
        raise UsageError(error) from error


def _referees(names: str | None) -> tuple[Referee, ...]:
    try:
        return () if names is None else tuple(select_referees(names))
    except RefereeError as error:
        raise UsageError(error) from error


def _own_target(file: Path) -> Target:
    try:
        return parse_target(file.stem, file.read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is {file_kind(file)}; expected a target's TOML") from error
    except ValueError as error:
        raise UsageError(f"{file}: {error}") from error


def _default_network() -> str:
    network, origin = default_checkpoint(Path.cwd())
    print(f"no network named: taking {network}, {origin}", file=sys.stderr)
    return network


def _report(plan: Plan, outcome: Outcome, written: "list[Written]", as_json: bool) -> None:
    manifest = outcome.manifest
    kept = [a.target for a in manifest.artifacts if a.target in outcome.failed]
    if as_json:
        document = {
            "bundle": str(plan.out) if manifest.artifacts else None,
            "usage": manifest.model.usage,
            "artifacts": [summary(artifact) for artifact in manifest.artifacts],
            "failed": outcome.failed,
            "kept": kept,  # of before, whose target failed now
            "skipped": outcome.skipped,
            "deepstream": [
                {"target": one.target, "config": str(one.config), "agreement": one.agreement}
                for one in written
            ],
        }
        print(json.dumps(document, indent=1))
        return
    if manifest.artifacts:
        Console().print(artifact_table(manifest), soft_wrap=True)
        for line in (
            *bound_lines(manifest),
            *class_lines(manifest),
            *slower_than_float(manifest),
            *confidence_lines(manifest),
            *referee_lines(manifest),
        ):
            print(line, file=sys.stderr)
        print(f"{plan.out} ({plan.out.stat().st_size / 1e6:.1f} MB)")
    for one in written:
        print(f"{one.config} (ids of {one.target}: {100 * one.agreement:.2f} %)")
    for name, why in outcome.failed.items():
        older = " (the bundle keeps its artifact of before)" if name in kept else ""
        complain("fastseg-export", f"{name} failed{older}: {why}")


def _list_targets(as_json: bool) -> int:
    targets = [load_target(name) for name in target_names()]
    if as_json:
        print(json.dumps(target_rows(targets), indent=1))
    else:
        Console().print(target_table(targets), soft_wrap=True)
    return DONE


def _compare(options: Options, bundle: Path) -> int:
    source = options.source(options.network) if options.network else None
    with redirect_stdout(sys.stderr), ExportProgress() as progress:
        found = compare_bundle(
            bundle, source.open() if source else None, options.verify, options.verify_images,
            progress.tell, progress.show,
        )  # fmt: skip
    if options.as_json:
        print(json.dumps(found.to_table(), indent=1))
    else:
        Console().print(comparison_table(found), soft_wrap=True)
        for line in missing_lines(found):
            print(line)
    return DONE


def main() -> None:
    """Run the command and exit."""
    run_command(
        "fastseg-export", partial(app, prog_name="fastseg-export", standalone_mode=False), carry_out
    )


if __name__ == "__main__":
    main()
