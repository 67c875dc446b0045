"""fastseg-web: a bundle on a page, for the browser of a phone."""

import json
import ssl
import sys
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from fastseg_runtime.arrays.command import UsageError, exit_code_help, run_command
from fastseg_runtime.bundle.reader import SUFFIX, open_bundle
from fastseg_runtime.bundle.usage import describe_usage

from fastseg_web import library
from fastseg_web.server import PageServer, choose_artifact, contents

NAME = "fastseg-web"
PORT = 8080
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(epilog=exit_code_help({}))
@dataclass(frozen=True)
class Options:
    """Show a bundle at work in a browser, with its camera: on this machine or on a phone.

    fastseg-web street.fastseg

    fastseg-web street.fastseg --host 0.0.0.0 --cert cert.pem --key key.pem

    Browsers give a camera to https:// and localhost alone. For a phone: adb reverse tcp:8080
    tcp:8080 (Android on a cable), or a certificate that the phone trusts. More ways in
    docs/platforms/web.md.
    """

    bundle: Annotated[
        Path | None, typer.Argument(help=f"The bundle. Default: the newest *{SUFFIX} here.")
    ] = None
    target: Annotated[
        str | None, typer.Option(help="Which of its artifacts; one for ONNX Runtime.")
    ] = None
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0: all of this machine's.")
    ] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = PORT
    cert: Annotated[
        Path | None, typer.Option(help="Certificate (PEM), for https://; needs --key.")
    ] = None
    key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None
    fetch: Annotated[
        bool,
        typer.Option(
            "--fetch",
            help=f"First fetch {library.NAME} into the cache ({library.WEIGHT}). Without a bundle "
            "that is all.",
        ),
    ] = False
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False


def carry_out(options: Options) -> None:
    """Serve until a signal comes."""
    if options.version:
        print(f"{NAME} {version('fastseg-edge')}")
        return
    if options.fetch:
        library.fetch(_tell)
        if options.bundle is None:
            kept = str(library.folder())
            print(json.dumps({"library": kept}) if options.as_json else kept)
            return
    path, tls = options.bundle or _newest_here(), _tls(options.cert, options.key)
    with open_bundle(path) as bundle:
        artifact, usage = choose_artifact(bundle, options.target), bundle.manifest.model.usage
        served = contents(bundle, artifact, library.read())
    _tell(f"{path}: {artifact.target} ({artifact.precision}); weights: {describe_usage(usage)}")
    with PageServer(served, options.host, options.port, tls) as server:
        if not server.is_secure:
            _tell(
                "browsers give no camera to this address, which is neither https:// nor localhost: "
                "give --cert and --key, or forward the port; docs/platforms/web.md"
            )
        told = {"url": server.url, "port": server.port, "bundle": str(path)}
        told |= {"target": artifact.target}
        print(json.dumps(told) if options.as_json else server.url, flush=True)
        server.serve()


def _newest_here() -> Path:
    newest = max(Path.cwd().glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise UsageError(
            f"no *{SUFFIX} in this folder; name a bundle, or make one: fastseg-export nano-camvid "
            "--target cpu-fp32"
        )
    return newest


def _tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise UsageError("--cert and --key belong together; give both, in PEM")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:
        raise UsageError(f"--cert {cert} --key {key}: not a pair in PEM ({error})") from error
    return context


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Run the command and exit."""
    run_command(NAME, partial(app, prog_name=NAME, standalone_mode=False), carry_out)
