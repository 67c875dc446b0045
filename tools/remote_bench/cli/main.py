"""remote_bench: a number you can believe, from a board with nothing installed on it."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from remote_bench.analysis.requirements import Requirements
from remote_bench.analysis.requirements import parse as parse_requirements
from remote_bench.cli import beforehand, options
from remote_bench.cli.commands import app as other_commands
from remote_bench.host.connect import Connector
from remote_bench.host.console import EXIT_CODE_HELP, complain, one_line_errors, out
from remote_bench.host.errors import INVALID, VALID, BenchError, UsageError
from remote_bench.host.host import Host
from remote_bench.host.watch import Cancel, Watch
from remote_bench.report.outcome import (
    Outcome,
    check_requirements,
    exit_code,
    publish,
    record_all,
)
from remote_bench.run import detach
from remote_bench.run.bench import measure
from remote_bench.run.fleet import on_hosts
from remote_bench.run.plan import TOOL, Plan, Untrained
from remote_bench.run.sweep import parse_sweep, summarise_sweep, sweep_table

app = typer.Typer(add_completion=False, rich_markup_mode=None)
OTHERS = ("doctor", "compare")


@app.command(epilog=EXIT_CODE_HELP)
@one_line_errors
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="HOST... [BUNDLE]",
            help="Hosts as ssh knows them, or localhost; and a NAME.fastseg. Default: the newest "
            "here, else one exported from our own network.",
        ),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Run this artifact of the bundle.")] = None,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="Of the timed run.")] = 20.0,
    idle: Annotated[float, typer.Option(min=0, max=600, help="Idle seconds, twice.")] = 5.0,
    frames: Annotated[
        Path | None, typer.Option(help="Folder of pictures (labels/ beside images/) or a video.")
    ] = None,
    fps: Annotated[float | None, typer.Option(min=0.1, help="A paced run as well.")] = None,
    power_mode: Annotated[str | None, typer.Option(help="Of nvpmodel; given back.")] = None,
    require: Annotated[
        str | None, typer.Option(help="Limits, such as fps>=30,p99<=33ms,memory<=500MB,power<=10W.")
    ] = None,
    require_usage: Annotated[
        str | None,
        typer.Option(help="commercial: refuse weights that are not known to allow it (code 1)."),
    ] = None,
    sweep: Annotated[
        str | None, typer.Option(help="Untrained networks instead: nano,small,base,large.")
    ] = None,
    sizes: Annotated[str, typer.Option(help="Of --sweep, WxH.")] = "512x256,1024x512",
    deploy: Annotated[
        str | None, typer.Option(help="Leave runtime, bundle and engine in this board folder.")
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Write the figures into the bundle.")
    ] = False,
    detached: Annotated[
        bool, typer.Option("--detach", help="Start, print the run's name, and leave.")
    ] = False,
    resume: Annotated[str | None, typer.Option(help="Fetch a detached run by name.")] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave uploads and engine there for the next run.")
    ] = False,
    folder: options.Folder = None,
    accept_host_key: options.AcceptHostKey = None,
    password_fd: options.PasswordFd = None,
    as_json: options.AsJson = False,
    report: options.Html = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Measure a bundle on boards over SSH: FPS, latency, memory, power, and a verdict.

    \b
    remote_bench jetson.local street.fastseg
    remote_bench pi@10.0.0.7 orin --require 'fps>=30,p99<=33ms' --report both.html
    remote_bench localhost --sweep nano,small --require 'fps>=30'
    remote_bench doctor jetson.local         what can be measured there, and what is missing
    remote_bench compare before.json after.json

    Nothing is installed on a board and nothing stays, unless --keep or --deploy says so.
    """
    if version:
        print(f"remote_bench ({TOOL})")
        return
    hosts, bundle = split_names(names or [])
    plan = Plan(
        bundle=bundle, target=target, seconds=seconds, idle_s=idle, frames=frames, fps=fps,
        power_mode=power_mode, deploy=deploy, keep=keep, base=folder,
        require_usage=require_usage,
    )  # fmt: skip
    wanted, connector = _requirements(require), Connector(accept_host_key, password_fd)
    beforehand.check_together(
        {"a host": hosts, "a bundle": bundle, "--target": target, "--frames": frames,
         "--fps": fps, "--power-mode": power_mode, "--require": require, "--sweep": sweep,
         "--require-usage": require_usage,
         "--deploy": deploy, "--record": record, "--detach": detached, "--resume": resume,
         "--report": report}
    )  # fmt: skip
    if resume is None and not hosts:
        raise UsageError("expected a host, such as jetson.local or localhost")
    beforehand.check(hosts, plan, report)
    if detached:
        raise typer.Exit(_detach(hosts, plan, connector, as_json))
    if sweep is not None:
        raise typer.Exit(_sweep(hosts, plan, parse_sweep(sweep, sizes), connector, wanted, as_json))
    outcomes = _resume(resume, connector) if resume else _measure(hosts, plan, connector)
    for outcome in outcomes.values():
        check_requirements(outcome, wanted)
    publish(outcomes, as_json, report)
    if record:
        record_all(outcomes)
    raise typer.Exit(max(map(exit_code, outcomes.values())))


def _measure(hosts: list[str], plan: Plan, connector: Connector) -> dict[str, Outcome]:
    return on_hosts(
        hosts, connector, lambda host, watch, cancel: measure(host, plan, watch, cancel)
    )


def _resume(name: str, connector: Connector) -> dict[str, Outcome]:
    run = detach.load_run(name)
    return on_hosts(
        [run.host],
        connector,
        lambda host, watch, cancel: detach.resume(run, host, watch, cancel),
    )


def _detach(hosts: list[str], plan: Plan, connector: Connector, as_json: bool) -> int:
    outcomes = on_hosts(
        hosts, connector, lambda host, watch, cancel: detach.start(host, plan, watch, cancel).run
    )
    runs = {host: run for host, run in outcomes.items() if isinstance(run, str)}
    errors = [error for error in outcomes.values() if isinstance(error, BenchError)]
    for error in errors:
        complain(error)
    if as_json:
        print(json.dumps({"runs": runs}))
    else:
        for host, run in runs.items():
            print(f"{host}: {run} goes on without you; fetch it: remote_bench --resume {run}")
    return max((error.exit_code for error in errors), default=VALID)


def _sweep(
    hosts: list[str],
    plan: Plan,
    networks: list[Untrained],
    connector: Connector,
    wanted: Requirements | None,
    as_json: bool,
) -> int:
    def work(host: Host, watch: Watch, cancel: Cancel) -> dict[str, Any]:
        plans = [dataclasses.replace(plan, untrained=network) for network in networks]
        return summarise_sweep([measure(host, one, watch, cancel) for one in plans], wanted)

    outcomes = on_hosts(hosts, connector, work)
    sweeps = {host: found for host, found in outcomes.items() if isinstance(found, dict)}
    errors = [error for error in outcomes.values() if isinstance(error, BenchError)]
    for error in errors:
        complain(error)
    if as_json:
        print(json.dumps({"schema": 1, "sweeps": sweeps}, indent=1))
    else:
        for host, found in sweeps.items():
            out.print(sweep_table(host, found), soft_wrap=True)
            print(f"{host}: the largest that does: {found['largest'] or 'none'}")
    codes = [VALID if found["largest"] else INVALID for found in sweeps.values()]
    return max([*codes, *(error.exit_code for error in errors)])


def split_names(names: list[str]) -> tuple[list[str], Path | None]:
    """Return the hosts, and the bundle among the arguments.

    Raises:
        UsageError: two bundles, or a host twice.
    """
    bundles = [name for name in names if name.endswith(".fastseg")]
    hosts = [name for name in names if name not in bundles]
    if len(bundles) > 1 or len(set(hosts)) < len(hosts):
        raise UsageError(f"expected hosts, each once, and one bundle at most, got {names}")
    return hosts, Path(bundles[0]) if bundles else None


def _requirements(text: str | None) -> Requirements | None:
    try:
        return parse_requirements(text) if text else None
    except ValueError as error:
        raise UsageError(f"--require: {error}") from error


def main() -> None:
    """Run the command."""
    if sys.argv[1:2] and sys.argv[1] in OTHERS:
        other_commands()
    else:
        app()
