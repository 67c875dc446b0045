"""The commands of fastseg-run: each prints to stdout and returns the exit code."""

import json
import sys
from argparse import Namespace
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from time import localtime, strftime
from typing import Any, Dict, List

from fastseg_runtime.arrays.plain_text import printable
from fastseg_runtime.arrays.progress import ProgressLine
from fastseg_runtime.arrays.shared_files import cache_folder
from fastseg_runtime.bundle.reader import open_bundle
from fastseg_runtime.bundle.usage import require_usage
from fastseg_runtime.cli import bundle_report, doctor
from fastseg_runtime.cli.run_jobs import Failure, Result, run_jobs
from fastseg_runtime.engines.model_file import open_model
from fastseg_runtime.engines.opening import Wish
from fastseg_runtime.engines.selftest import forget_passed_tests
from fastseg_runtime.engines.shipped import find_shipped
from fastseg_runtime.engines.tensorrt.cache import EngineCache
from fastseg_runtime.frames.job import InputError, plan_jobs
from fastseg_runtime.frames.session import RealtimeSegmentation

OK, FAILED, USAGE = 0, 1, 2


def run_inputs(options: Namespace) -> int:
    """Run pictures, folders, videos and cameras, with a shipped network if no model is named."""
    try:
        jobs = plan_jobs(options.inputs, options.output)
    except InputError as error:
        print(f"fastseg-run: {error}", file=sys.stderr)
        return USAGE
    if options.model is None:
        options.model = find_shipped()
        print(f"no bundle named: taking {options.model.stem}", file=sys.stderr)
    check_usage(options)
    results: List[Result] = []
    failures: List[Failure] = []
    with _open_session(options) as session, ProgressLine("done") as progress:
        for outcome in run_jobs(session, jobs, options.save, progress):
            if isinstance(outcome, Failure):
                failures.append(outcome)
                print(printable(f"fastseg-run: {outcome.error}"), file=sys.stderr)
            else:
                results.append(outcome)
                if not options.json:
                    print(printable(_describe_result(outcome)), flush=True)
        used = {
            "backend": session.info.backend,
            "target": session.info.target,
            "usage": session.manifest.model.usage,
        }
    if options.json:
        inputs, failed = ([asdict(item) for item in items] for items in (results, failures))
        _print_json({"inputs": inputs, "failed": failed, **used})
    elif len(jobs) > 1:
        print(f"{len(results)} of {len(jobs)} done")
    return FAILED if failures else OK


def check_usage(options: Namespace) -> None:
    """Refuse a model whose weights are not for what --require-usage names.

    Raises:
        UsageRefusedError: see fastseg_runtime.bundle.usage.
    """
    if options.require_usage is not None:
        with closing(open_model(options.model)) as model:
            usage = model.manifest.model.usage
        require_usage(options.require_usage, usage, str(options.model))


def inspect_bundle(options: Namespace) -> int:
    """Print the manifest."""
    with open_bundle(options.model) as bundle:
        if options.json:
            sys.stdout.write(printable(bundle.manifest.to_json()))
        else:
            print(printable(bundle_report.describe(bundle.manifest)))
    return OK


def verify_bundle(options: Namespace) -> int:
    """Check hashes and run the self-test; fails if an artifact fails, or if none could be run."""
    report = bundle_report.verify(Path(options.model), _wish(options))
    _print(options, report, bundle_report.describe_verification(report))
    outcomes = [row["passed"] for row in report["artifacts"]]
    return OK if True in outcomes and False not in outcomes else FAILED


def extract_target(options: Namespace) -> int:
    """Write the files of one target into a folder."""
    with open_bundle(options.model) as bundle:
        files = [str(file) for file in bundle.extract(options.extract, options.output)]
    _print(options, {"target": options.extract, "files": files}, "\n".join(files))
    return OK


def prepare_engine(options: Namespace) -> int:
    """Open the best artifact, which builds and tests its engine where one is needed."""
    with _open_session(options) as session:
        info = session.info
    report = {"backend": info.backend, "target": info.target, "precision": info.precision}
    ready = f"ready: {info.target} ({info.precision}) with {info.backend} {info.version}"
    _print(options, report, ready)
    return OK


def examine_device(options: Namespace) -> int:
    """Print what this device has; fails if a bundle was named and nothing in it runs here."""
    bundle = None if options.model is None else Path(options.model)
    report = doctor.examine(bundle, _wish(options))
    _print(options, report, doctor.describe(report))
    return FAILED if bundle is not None and not report["bundle"]["usable"] else OK


def show_or_clear_cache(options: Namespace) -> int:
    """Print the engines that were built here, or remove them."""
    cache = EngineCache()
    entries = cache.entries()
    freed = cache.clear() if options.cache == "clear" else 0
    if options.cache == "clear":
        forget_passed_tests()
    if options.json:
        rows = [{"engine": e.digest, "bytes": e.bytes, "trusted": e.trusted} for e in entries]
        _print_json({"folder": str(cache_folder()), "engines": rows, "freed_bytes": freed})
        return OK
    if options.cache == "clear":
        print(f"removed {len(entries)} engines, {freed / 1e6:.1f} MB, from {cache_folder()}")
        return OK
    print(f"{cache_folder()}: {len(entries)} engines")
    for entry in entries:
        used = strftime("%Y-%m-%d %H:%M", localtime(entry.used_s))
        state = "tested" if entry.trusted else "untested"
        print(f"  {entry.digest[:12]}  {entry.bytes / 1e6:.1f} MB  used {used}  {state}")
    return OK


def _wish(options: Namespace) -> Wish:
    return Wish(options.backend, options.device, options.threads, target=options.target)


def _open_session(options: Namespace) -> RealtimeSegmentation:
    return RealtimeSegmentation(
        options.model,
        backend=options.backend,
        device=options.device,
        threads=options.threads,
        target=options.target,
        engines=options.engines,
    )


def _describe_result(result: Result) -> str:
    largest = list(result.class_shares.items())[:4]
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in largest)
    where = result.output + (f" and {result.mask}" if result.mask else "")
    return (
        f"{result.input}: {result.width}x{result.height}, {result.fps:.1f} FPS, {shares} -> {where}"
    )


def _print(options: Namespace, table: Dict[str, Any], text: str) -> None:
    if options.json:
        _print_json(table)
    else:
        print(printable(text))


def _print_json(table: Dict[str, Any]) -> None:
    print(printable(json.dumps(table, indent=1, ensure_ascii=False)))
