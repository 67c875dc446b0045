"""Precisions: all that is known of each, in one place.

One from outside stands in the record of the engine that it comes with, Engine.precisions.
"""

from dataclasses import dataclass
from typing import Dict, Optional, Tuple


@dataclass(frozen=True)
class Precision:
    """What an artifact stores and computes in; the defaults are those of one that nobody knows.

    Attributes:
        name: in a target's ladder and in Artifact.precision.
        bytes_per_weight: the least that a weight takes in memory, whatever the file holds: a
            bound must not be too high.
        rate: the field of a board's Peak that it computes at; "": none is known, and a bound
            counts memory alone.
        is_float: computes the same function as PyTorch, and may stand for it.
        calibrated: takes ranges from images.
        ranks: on an accelerator, on a CPU that multiplies and adds bytes, on another CPU: the
            lower, the earlier it is tried. Int8 wins on a CPU only with such instructions; fp16
            has few kernels there.
        selftest_agreement: fraction of a self-test's pixels that must agree on a device where the
            exporter recorded nothing; a broken engine is far below. Integer networks decide
            differently where two classes are nearly as likely.
        gate_agreement: the least share of pixels with PyTorch's ids, as the mean over the images,
            that the exporters' gate lets through; unless is_float, only where no label says what
            the pixels that differ cost.
        scene_agreement: the same in each scene of the self-test, the hard ones too; None: no limit.
    """

    name: str
    bytes_per_weight: float = 0.0
    rate: str = ""
    is_float: bool = False
    calibrated: bool = False
    ranks: Tuple[int, int, int] = (40, 40, 40)
    selftest_agreement: float = 0.8
    # Two points below the least that a sound int8 of nano, small or base gave on generated scenes,
    # 0.970 (on CamVid 0.992). With one of three weights doubled they gave 0.69 to 0.93 there in 14
    # of 18 cases, 0.951 to 0.981 in the others, with red and blue swapped 0.75 to 0.78
    # (tools/export_figures/measure_agreement.py).
    gate_agreement: float = 0.95
    # Int8 gave 0.840 on a mosaic and was sound, and on a plain picture all pixels may change.
    scene_agreement: Optional[float] = None


PRECISIONS: Dict[str, Precision] = {
    precision.name: precision
    for precision in (
        # All that were measured had a gate_agreement of 0.9999 or more, nano 1.000 in each scene.
        Precision("fp32", 4, "fp32_gflops", True, False, (30, 20, 10), 0.99, 0.999, 0.99),
        # 0.998 or more in trained networks, but in untrained ones the two best classes are nearly
        # equal everywhere; nano 0.999 in each scene.
        Precision("fp16", 2, "fp16_gflops", True, False, (20, 30, 20), 0.97, 0.97, 0.9),
        Precision("int8", 1, "int8_gops", calibrated=True, ranks=(10, 10, 30)),
        Precision("int8-weights", 1, "fp16_gflops"),  # what they compute in, or slower
        Precision("palettized", 1 / 8, "fp16_gflops"),
    )
}
