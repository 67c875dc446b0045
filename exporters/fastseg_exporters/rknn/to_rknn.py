"""RKNN: the graph to the logits, built by Rockchip's toolkit where its referee lives.

What would upsample them and take the argmax stays on the CPU: a resize to the picture's size is
what NPUs are worst at, and in int8 it costs mIoU (docs/exporting.md). The camera's bytes go in,
normalised by the NPU. The toolkit finds int8's ranges itself.
"""

import dataclasses
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fastseg_runtime.bundle.manifest import OutputSpec
from fastseg_runtime.engines.engine import ENGINES, find_precision

from fastseg_exporters.convert.exporter import (
    CAVEAT,
    FOR_GATE,
    ExportedArtifact,
    Request,
    parse_options,
    versions,
)
from fastseg_exporters.gate.referees.judge_rknn import CHIPS
from fastseg_exporters.gate.referees.referee import REFEREES
from fastseg_exporters.gate.referees.toolchain import Toolchain
from fastseg_exporters.onnx.own_file import refuse_operators_of_others
from fastseg_exporters.onnx.to_onnx import describe, float_graph, outputs_of, save, take_bytes

ENTRY, SOURCE = "model.rknn", "model.onnx"
RANGES = 64  # pictures for int8 at most: the simulator is built anew of them for the gate


@dataclass(frozen=True)
class Options:
    """Of a target's table."""

    chip: str = CHIPS[0]

    def __post_init__(self) -> None:
        """Refuse a chip that the toolkit was not asked about."""
        if self.chip not in CHIPS:
            raise ValueError(f"chip is {self.chip!r:.80}; choose one of {', '.join(CHIPS)}")


def export(request: Request, out_dir: Path) -> ExportedArtifact:
    """Write model.rknn; what it is made of is for the gate, which simulates it.

    Raises:
        ToolchainError: the toolkit refuses the network, or is not here.
        ValueError: another chip, or an operation that ONNX lacks or a file has from elsewhere.
    """
    asked = request.conversion
    chip = parse_options(Options, asked.target).chip
    graph = request.graph()
    if graph.confidence is not None:
        raise ValueError("the NPU gives logits, of which the runtime makes its own confidence")
    graph.output = "logits"
    model = take_bytes(float_graph(graph), graph)
    refuse_operators_of_others(model)
    describe(model, request.network, OutputSpec(graph.output, graph.mask_stride))
    for_gate = out_dir / FOR_GATE
    for_gate.mkdir()
    save(model, for_gate / SOURCE)
    if find_precision(asked.precision).calibrated:
        calibration = asked.recipe.calibration  # spread over what there is, whatever its number
        few = dataclasses.replace(calibration, count=min(calibration.count, RANGES))
        for index, image_1HW3 in enumerate(few.images(request.network.info.input_spec())):
            np.save(for_gate / f"{index}.npy", image_1HW3)
    with closing(Toolchain(REFEREES["rknn"], own_group=False)) as toolkit:
        said = build(toolkit, for_gate, chip, out_dir / ENTRY)
    return ExportedArtifact(
        format="rknn",
        entry=ENTRY,
        io={"image": "uint8 NHWC", **outputs_of(graph)},
        requires=ENGINES["rknn"].requirement,
        toolchain={**versions("torch", "onnx", "onnxsim"), "rknn-toolkit2": said["version"]},
        extra={CAVEAT: f"simulated, not run on a board ({chip})", "chip": chip},
    )


def build(toolkit: Toolchain, source: Path, chip: str, made: Path) -> dict[str, str]:
    """Build what a folder holds for a chip, and let the toolkit simulate it from then on.

    Args:
        toolkit: open.
        source: with model.onnx, and for int8 with pictures 0.npy ..., uint8 (1, H, W, 3).
        chip: one of CHIPS.
        made: where the file goes.

    Raises:
        ToolchainError: it refuses.
    """
    pictures = sorted(str(file.absolute()) for file in source.glob("*.npy"))
    said: dict[str, str] = toolkit.ask(
        model=str((source / SOURCE).absolute()),
        chip=chip,
        ranges=pictures,
        made=str(made.absolute()),
    )
    return said
