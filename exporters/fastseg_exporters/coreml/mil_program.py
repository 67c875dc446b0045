"""A Core ML program as plain records: what an .mlpackage computes, without Apple's library.

MIL is the language of Core ML's "ML programs". An operation of it has a type ("conv"), named
inputs that are constants or results of earlier operations, and named results. The types are
documented at https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class Ref:
    """The result of an earlier operation, or the image, by its name."""

    name: str


# A constant is a tensor (weights), a scalar, or a tuple of scalars (strides, axes, masks); a tuple
# may also list the tensors that "concat" joins.
Operand = Ref | Tensor | bool | int | float | str | tuple["Operand", ...]


@dataclass(frozen=True)
class Result:
    """One value that an operation gives, and the type it is stored in: "fp16", "int32", ..."""

    name: str
    dtype: str


@dataclass(frozen=True, eq=False)  # tensors among the inputs have no single truth of equality
class Operation:
    """One operation of a program."""

    type: str
    inputs: dict[str, Operand]
    results: tuple[Result, ...]

    def refs(self) -> Iterator[str]:
        """Yield the names of the earlier results that this operation needs."""
        for operand in self.inputs.values():
            for value in operand if isinstance(operand, tuple) else (operand,):
                if isinstance(value, Ref):
                    yield value.name


@dataclass(frozen=True)
class Program:
    """A program with one image as its input and one result.

    Attributes:
        image: the input's name. Its value is float (1, 3, height, width), the bytes as they are.
        color: the order in which Core ML hands the image's channels to the program.
        width: W, pixels.
        height: H, pixels.
        operations: in an order in which they can run.
        output: the name of the result.
    """

    image: str
    color: Literal["rgb", "bgr"]
    width: int
    height: int
    operations: tuple[Operation, ...]
    output: str
