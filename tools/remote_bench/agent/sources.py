"""Which power sources this board has."""

from typing import List, Union

from .board import Board
from .nvml import Nvml
from .rails import InaHwmon, InaIio, Rapl, RaspberryPmic

Source = Union[InaHwmon, InaIio, Rapl, RaspberryPmic, Nvml]


def ina_sources(board: Board) -> List[Source]:
    """Return the sources that show what tegrastats shows too."""
    found: List[Source] = [InaHwmon(board), InaIio(board)]
    return [source for source in found if source.rails]


def other_sources(board: Board) -> List[Source]:
    """Return the sources that tegrastats does not cover."""
    found: List[Source] = [Rapl(board), RaspberryPmic(board)]
    if board.root == "/":
        found.append(Nvml())
    return [source for source in found if source.rails]
