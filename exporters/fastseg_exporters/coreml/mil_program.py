"""A Core ML program as plain records, and its evaluation in torch: a check of ours, no proof.

MIL is the language of Core ML's "ML programs". An operation of it has a type ("conv"), named
inputs that are constants or results of earlier operations, and named results. The types are
documented at https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html

Operations are computed in float32 and every result is rounded to the type that the program
stores it in, so fp16's rounding and overflow are seen here as they are on a phone.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fastseg_exporters.coreml.mil_ops import OPERATIONS


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
        color: "rgb" or "bgr": the order in which Core ML hands the image's channels to the program.
        width: W, pixels.
        height: H, pixels.
        operations: in an order in which they can run.
        output: the name of the result.
        confidence: the name of what it gives besides, or "".
    """

    image: str
    color: str
    width: int
    height: int
    operations: tuple[Operation, ...]
    output: str
    confidence: str = ""


class UnsupportedOperationError(ValueError):
    """The program has an operation that cannot be evaluated here."""


class Evaluator:
    """A program with its weights unpacked, ready to run.

    Raises:
        UnsupportedOperationError: operations outside mil_ops.OPERATIONS.
    """

    def __init__(self, program: Program) -> None:
        if unknown := unknown_operations(program):
            names = ", ".join(f"{o.type} ({o.results[0].name})" for o in unknown)
            raise UnsupportedOperationError(
                "the Core ML program has operations that cannot be evaluated without macOS: "
                f"{names}; add them to mil_ops.py, or verify on a Mac"
            )
        self.program = program
        self._constants: dict[str, Tensor] = {}
        self._operations: list[Operation] = []
        for operation in program.operations:
            if operation.type.startswith("constexpr_"):
                self._constants.update(_evaluate(operation, {}))
            else:
                self._operations.append(operation)

    def __call__(self, image_1HW3: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Run the program.

        Args:
            image_1HW3: uint8 RGB (1, H, W, 3).

        Returns:
            int32 ids (1, H, W) or float32 logits (1, K, h, w), whichever the program gives; and
            the confidence, int32 (1, h, w), if it gives one.
        """
        image_13HW = image_1HW3.permute(0, 3, 1, 2).float()
        if self.program.color == "bgr":
            image_13HW = image_13HW.flip(1)
        values = {**self._constants, self.program.image: image_13HW}
        uses = Counter(name for operation in self._operations for name in operation.refs())
        uses.update([self.program.output, self.program.confidence])
        with torch.inference_mode():
            for operation in self._operations:
                values.update(_evaluate(operation, values))
                for name in operation.refs():
                    uses[name] -= 1
                    if not uses[name]:
                        del values[name]  # a whole network's maps would take gigabytes
        result = values[self.program.output]
        return (result, values[self.program.confidence]) if self.program.confidence else result


def unknown_operations(program: Program) -> list[Operation]:
    """Return the operations that the table lacks."""
    return [o for o in program.operations if o.type not in OPERATIONS]


def _evaluate(operation: Operation, values: dict[str, Tensor]) -> dict[str, Tensor]:
    inputs = {name: _resolve(operand, values) for name, operand in operation.inputs.items()}
    try:
        output = OPERATIONS[operation.type](**inputs)
        outputs = output if isinstance(output, tuple) else (output,)
        return {
            result.name: _stored_as(result.dtype, value)
            for result, value in zip(operation.results, outputs, strict=True)
        }
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise UnsupportedOperationError(
            f"cannot evaluate {operation.type} ({operation.results[0].name}): {error}"
        ) from error


def _resolve(operand: Operand, values: dict[str, Tensor]) -> object:
    if isinstance(operand, Ref):
        return values[operand.name]
    if isinstance(operand, tuple):
        return tuple(_resolve(item, values) for item in operand)
    return operand


_STORED = {"fp32": torch.float32, "int32": torch.int32, "bool": torch.bool}


def _stored_as(dtype: str, value: Tensor) -> Tensor:
    if dtype == "fp16":
        return value.half().float()
    if dtype not in _STORED:
        raise ValueError(f"values of type {dtype}; expected fp16 or one of {sorted(_STORED)}")
    return value.to(_STORED[dtype])
