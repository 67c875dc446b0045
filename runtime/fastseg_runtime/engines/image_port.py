"""How an ONNX file of others takes its picture, read off what ONNX Runtime says of its inputs."""

from dataclasses import dataclass
from typing import Any, Optional, Sequence, Tuple

from fastseg_runtime.bundle.manifest import MAX_SIDE

FLOAT, BYTE = "tensor(float)", "tensor(uint8)"
_EXPECTED = f"expected one picture, (1, 3, H, W) or (1, H, W, 3), as {FLOAT} or {BYTE}"


@dataclass(frozen=True)
class ImagePort:
    """The one input of a file.

    Attributes:
        name: of the input.
        takes_bytes: uint8, as a camera gives them; False: float32, normalised.
        channels_last: (1, H, W, 3); False: (1, 3, H, W).
        width: pixels; None: any.
        height: pixels; None: any.
    """

    name: str
    takes_bytes: bool
    channels_last: bool
    width: Optional[int]
    height: Optional[int]

    def size_for(self, wanted: Optional[Tuple[int, int]]) -> Tuple[int, int]:
        """Return the (width, height) to run at.

        Args:
            wanted: what the user asked for; None: nothing.

        Raises:
            ValueError: the file takes another size, or any and none was named.
        """
        if wanted is None:
            if self.width is None or self.height is None:
                raise ValueError("takes pictures of any size; say which with --size WxH")
            return self.width, self.height
        if any(own not in (None, side) for own, side in zip((self.width, self.height), wanted)):
            own_size = f"{self.width or 'W'}x{self.height or 'H'}"
            raise ValueError(
                f"takes pictures of {own_size} alone, not {wanted[0]}x{wanted[1]}; leave the size "
                "out, or export the file for that size"
            )
        return wanted


def image_port(inputs: Sequence[Any]) -> ImagePort:
    """Return how a file takes its picture.

    Args:
        inputs: of an InferenceSession: name, type and shape of each; a side that is open is None
            or a word.

    Raises:
        ValueError: it takes anything else than one RGB picture.
    """
    taken = ", ".join(f"{x.name} {x.type} {x.shape}" for x in inputs)[:200] or "nothing"
    problem = f"takes {taken}; {_EXPECTED}"
    if [x.type for x in inputs] == ["tensor(float16)"]:
        raise ValueError(problem + "; export it with keep_io_types=True")
    if len(inputs) != 1 or inputs[0].type not in (FLOAT, BYTE) or len(inputs[0].shape) != 4:
        raise ValueError(problem)
    (port,) = inputs
    batch, *sides = [side if isinstance(side, int) else None for side in port.shape]
    # Where both or none could be the channels, ONNX's own order is meant; a trial run would fail.
    channels_last = sides[2] == 3 and sides[0] != 3
    channels = sides.pop(2 if channels_last else 0)
    if batch not in (None, 1) or channels not in (None, 3):
        raise ValueError(problem)
    height, width = sides
    if not all(side is None or 1 <= side <= MAX_SIDE for side in sides):
        raise ValueError(f"takes {taken}; expected sides of 1 to {MAX_SIDE} pixels")
    return ImagePort(port.name, port.type == BYTE, channels_last, width, height)
