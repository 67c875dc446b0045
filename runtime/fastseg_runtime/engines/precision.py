"""Precisions: all that is known of each, in one place.

One from outside stands in the record of the engine that it comes with, Engine.precisions.
"""

from dataclasses import dataclass
from typing import Dict, Optional, Tuple


@dataclass(frozen=True)
class Precision:
    """What an artifact stores and computes in; the defaults are those of one that nobody knows."""

    name: str  # in a target's ladder and in Artifact.precision
    bytes_per_weight: float = 0.0  # the least in memory: a bound must not be too high
    rate: str = ""  # the field of a board's Peak that it computes at; "": memory alone is counted
    is_float: bool = False  # computes the same function as PyTorch, and may stand for it
    calibrated: bool = False  # takes ranges from images
    # On an accelerator, on a CPU that multiplies and adds bytes, on another: the lower, the earlier
    # it is tried. Int8 wins on a CPU only with such instructions; fp16 has few kernels there.
    ranks: Tuple[int, int, int] = (40, 40, 40)
    # Fraction of a self-test's pixels that must agree on a device where the exporter recorded none;
    # a broken engine is far below. Int8 decides differently where two classes are nearly as likely.
    selftest_agreement: float = 0.8
    # The least share of pixels with PyTorch's ids, as the mean over images, that the exporters'
    # gate lets through; unless is_float, only where no label says what the others cost. Two points
    # below the least that a sound int8 of nano, small or base gave on generated scenes, 0.970 (on
    # CamVid 0.992). With one of three weights doubled they gave 0.69 to 0.93 there in 14 of 18
    # cases, 0.951 to 0.981 in the others, with red and blue swapped 0.75 to 0.78
    # (tools/export_figures/measure_agreement.py).
    gate_agreement: float = 0.95
    # The same in each scene of the self-test, the hard ones too; None: no limit. Int8 gave 0.840 on
    # a mosaic and was sound, and on a plain picture all pixels may change at once.
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
