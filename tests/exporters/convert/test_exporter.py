"""What decides the files of a conversion, so that two targets need not make the same twice."""

from typing import Any

import pytest
from fastseg_exporters.convert.exporter import Conversion, Recipe, same_files
from fastseg_exporters.convert.source import NetworkSource
from fastseg_targets.target import load_target


def made(target: str, precision: str, **changes: Any) -> str:
    """Return what decides the files of a conversion."""
    recipe = Recipe(NetworkSource("nano"))
    return same_files(Conversion(recipe, load_target(target), precision, **changes))


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (("cpu-fp32", "fp32"), ("intel-bf16", "bf16"), True),
        (("cpu-int8", "int8"), ("intel-int8", "int8"), True),
        (("android-int8", "int8"), ("raspberrypi-int8", "int8"), True),
        (("cpu-fp32", "fp32"), ("cpu-int8", "int8"), False),
        (("cpu-fp32", "fp32"), ("jetson-fp16", "fp32"), False),  # another exporter
        (("android-fp32", "fp32"), ("android-fp16", "fp32"), False),  # other options
    ],
)
def test_conversions_that_give_the_same_files_are_known_without_making_them(
    one: tuple[str, str], other: tuple[str, str], alike: bool
) -> None:
    assert (made(*one) == made(*other)) == alike
    assert made(*one) != made(*one, keep_float=("a",))
