"""A network tried on noise: whether it gives logits for each class, and what is odd about them.

Shape letters as in fastseg/outputs.py.
"""

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastseg.checkpoint import CheckpointError
from fastseg.normalization import CENTRED, Normalization
from fastseg.outputs import Choice, Reading, ReadingError, kind_of_probabilities, leaves
from fastseg.own_code import own_code

LOUD = 1000  # times a picture: logits leave 0 to 1 there, probabilities do not
SATURATED = 1e-3  # of the largest: as near as that to an end of a sigmoid


@dataclass(frozen=True)
class _Given:
    """What a network gave.

    Attributes:
        note: what a user should know of the choice among its outputs; "" for nothing.
        logits_NKhw: for noise.
        loud_NKhw: for LOUD times that; the same where that tells nothing, or it fails there.
        kind: "softmax" or "sigmoid" where both are as after one, else "".
        side: at which side of 0 its one logit ends; "" at none, or as meant by its threshold.
    """

    note: str
    logits_NKhw: Tensor
    loud_NKhw: Tensor
    kind: str
    side: str


def check_logits(
    spec: str,
    model: nn.Module,
    reading: Reading,
    size: tuple[int, int],
    normalization: Normalization = CENTRED,
    for_training: bool = False,
) -> list[str]:
    """Run a network on a picture of noise and refuse one that has no logits for each class.

    Args:
        spec: its name, for the message.
        model: in eval mode.
        reading: which of its outputs are the logits, of how many classes.
        size: (width, height) to try it at.
        normalization: its own.
        for_training: refuse probabilities, which losses would take for logits.

    Returns:
        What a user should know of its logits, one line each.

    Raises:
        CheckpointError: it fails at that size, or what it gives is no (N, K, h, w).
    """
    tried = f"tried at {size[0]}x{size[1]}"
    image_N3HW = normalization.normalise(noise(size))
    try:
        given = _try(f"{spec}, {tried}", model, reading, image_N3HW)
        _refuse(given, reading, for_training)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{spec} {error}; {tried}") from error
    return [f"{spec} {note}" for note in _notes(given) if note]


def noise(size: tuple[int, int]) -> Tensor:
    """Return a picture of noise, uint8 (1, H, W, 3), the same each time."""
    return torch.randint(
        0,
        256,
        (1, size[1], size[0], 3),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(0),
    )


def _try(doing: str, model: nn.Module, reading: Reading, image_N3HW: Tensor) -> _Given:
    def run(image_N3HW: Tensor) -> tuple[Choice, Tensor]:
        # Not inference_mode(): a network that keeps a grid by size could not be trained with it.
        with own_code(doing, getattr(type(model), "forward", model)), torch.no_grad():
            result = model(image_N3HW)
        choice = reading.choose(result, image_N3HW)
        return choice, leaves(result)[choice.path]

    try:
        choice, logits_NKhw = run(image_N3HW)
    except CheckpointError as error:
        if "view size is not compatible" not in str(error):
            raise
        raise CheckpointError(
            f"{error}; pictures are channels last in memory here, which .reshape() takes too"
        ) from error
    kind, one = kind_of_probabilities(logits_NKhw), logits_NKhw.shape[1] == 1
    loud_NKhw = logits_NKhw
    if kind or one:
        with contextlib.suppress(CheckpointError):  # its author may assert what pictures can be
            loud_NKhw = run(LOUD * image_N3HW)[1]
    kind = kind and kind_of_probabilities(loud_NKhw)
    is_judged = one and reading.threshold == Reading.threshold
    side = _only_side(logits_NKhw, loud_NKhw) if is_judged else ""
    return _Given(choice.note, logits_NKhw, loud_NKhw, kind, side)


def _refuse(given: _Given, reading: Reading, for_training: bool) -> None:
    logits_NKhw, loud_NKhw = given.logits_NKhw, given.loud_NKhw
    one = logits_NKhw.shape[1] == 1
    if reading.threshold != Reading.threshold and not one:
        raise ReadingError("has a logit for each class; --threshold is for one: leave it out")
    if given.kind and (for_training or one):
        raise ReadingError(
            f"gives probabilities ({logits_NKhw.min():.3g} to {logits_NKhw.max():.3g}) and no "
            f"logits; leave the {given.kind} out of its forward()"
        )
    if one and bool((logits_NKhw == logits_NKhw.round()).all()):
        raise ReadingError("gives whole numbers as floats, such as class ids; leave the argmax out")
    cut = for_training and not (bool(logits_NKhw.all()) or bool(loud_NKhw.all()))
    if given.side and (cut or _is_saturated(loud_NKhw)):
        raise ReadingError(given.side)


def _notes(given: _Given) -> tuple[str, ...]:
    ids = bool(((given.logits_NKhw == 0) | (given.logits_NKhw == 1)).all())  # as scores
    probabilities = (
        f"gives probabilities ({given.kind}): the class map is that of the largest, and --output "
        "logits would give them in place of logits"
    )
    return given.note, given.side, probabilities if given.kind and not ids else ""


def _only_side(logits_NKhw: Tensor, loud_NKhw: Tensor) -> str:
    """Return at which side of 0 one logit ends, for a picture and a loud one; "" at none.

    An end AT 0 tells of an activation: a network that calls all noise background has none.
    """
    if loud_NKhw.abs().min() > SATURATED * loud_NKhw.abs().max():
        return ""
    span = f"({logits_NKhw.min():.3g} to {logits_NKhw.max():.3g} for noise)"
    for sign, side, only in ((1, "below", "second"), (-1, "above", "first")):
        if all(bool((sign * values >= 0).all()) for values in (logits_NKhw, loud_NKhw)):
            return (
                f"gives one logit that is never {side} 0 {span}: all but 0 is the {only} class; a "
                "sigmoid, ReLU or scale at its end? leave it out of its forward()"
            )
    return ""


def _is_saturated(loud_NKhw: Tensor) -> bool:
    """Return whether one logit of a loud picture is at its ends, 0 and another: k * sigmoid."""
    parts = loud_NKhw / loud_NKhw.flatten()[loud_NKhw.abs().argmax()]
    off, on = parts < SATURATED, parts > 1 - SATURATED
    return bool(off.any()) and bool(2 * on.sum() > (~off).sum())
