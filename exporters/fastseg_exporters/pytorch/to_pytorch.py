"""PyTorch, for development: the checkpoint as it is and a plain state dict beside it."""

from dataclasses import dataclass
from pathlib import Path

import torch
from fastseg_runtime.engines.engine import ENGINES

from fastseg import FastSegNet, save_checkpoint
from fastseg_exporters.convert.exporter import ExportedArtifact, Request, parse_options, versions


@dataclass(frozen=True)
class Options:
    """Of a target's table: none so far."""


def export(request: Request, out_dir: Path) -> ExportedArtifact:
    """Write model.safetensors and state_dict.pth.

    Raises:
        ValueError: a network of one's own; its code cannot go into a bundle.
    """
    asked = request.conversion
    parse_options(Options, asked.target)
    if asked.recipe.temperature is not None:
        raise ValueError(f"target {asked.target.name} gives no confidence; leave --confidence out")
    model = request.network.model
    if not isinstance(model, FastSegNet):
        raise ValueError(
            f"target {asked.target.name} holds weights of FastSegNet alone; the code of "
            f"{request.network.info.variant} cannot go into a bundle"
        )
    output = asked.recipe.output
    save_checkpoint(out_dir / "model.safetensors", model, request.network.info)
    torch.save(model.state_dict(), out_dir / "state_dict.pth")
    return ExportedArtifact(
        format="pytorch",
        entry="model.safetensors",
        io={"image": "uint8 NHWC", output: "uint8" if output == "classes" else "float32 NCHW"},
        requires=ENGINES["pytorch"].requirement,
        toolchain=versions("torch", "safetensors"),
    )
