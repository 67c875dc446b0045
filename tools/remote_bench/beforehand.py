"""Mistakes that show on this machine alone, found before any board is touched."""

import os
from pathlib import Path

from remote_bench.bundle_facts import read_manifest
from remote_bench.errors import UsageError
from remote_bench.plan import Plan

_NETWORKS = (".onnx", ".safetensors", ".pth", ".engine", ".tflite", ".mlpackage")


def check(hosts: list[str], plan: Plan, html: Path | None) -> None:
    """Return normally if nothing that is named here can end the measurement in vain.

    Raises:
        UsageError: a file for a host, no such bundle, target or frames, or no place for the page.
    """
    for host in hosts:
        if host.endswith(_NETWORKS):
            raise UsageError(
                f"{host} is neither a host nor a bundle; remote_bench measures NAME.fastseg, which "
                "fastseg-export makes of a network"
            )
    if plan.bundle is not None:
        read_manifest(plan.bundle, plan.target)
    if plan.frames is not None and not plan.frames.exists():
        raise UsageError(f"--frames {plan.frames}: no such folder or video")
    if html is not None and (html.is_dir() or not os.access(html.absolute().parent, os.W_OK)):
        raise UsageError(f"--report {html}: expected a file in a folder that can be written")
