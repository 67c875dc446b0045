"""Evaluates a Core ML program in torch, where there is no macOS: a check of ours, no proof.

Operations are computed in float32 and every result is rounded to the type that the program
stores it in, so fp16's rounding and overflow are seen here as they are on a phone.
"""

from collections import Counter

import torch
from torch import Tensor

from fastseg_exporters.coreml.mil_ops import OPERATIONS
from fastseg_exporters.coreml.mil_program import Operand, Operation, Program, Ref


class UnsupportedOperationError(ValueError):
    """The program has an operation that cannot be evaluated here."""


class Evaluator:
    """A program with its weights unpacked, ready to run.

    Raises:
        UnsupportedOperationError: operations outside mil_ops.OPERATIONS.
    """

    def __init__(self, program: Program) -> None:
        check_operations(program)
        self.program = program
        self._constants: dict[str, Tensor] = {}
        self._operations: list[Operation] = []
        for operation in program.operations:
            if operation.type.startswith("constexpr_"):
                self._constants.update(_evaluate(operation, {}))
            else:
                self._operations.append(operation)

    def __call__(self, image_1HW3: Tensor) -> Tensor:
        """Run the program.

        Args:
            image_1HW3: uint8 RGB (1, H, W, 3).

        Returns:
            int32 ids (1, h, w) or float32 logits (1, K, h, w), whichever the program gives.
        """
        image_13HW = image_1HW3.permute(0, 3, 1, 2).float()
        if self.program.color == "bgr":
            image_13HW = image_13HW.flip(1)
        values = {**self._constants, self.program.image: image_13HW}
        uses = Counter(name for operation in self._operations for name in operation.refs())
        uses[self.program.output] += 1
        with torch.inference_mode():
            for operation in self._operations:
                values.update(_evaluate(operation, values))
                for name in operation.refs():
                    uses[name] -= 1
                    if not uses[name]:
                        del values[name]  # a whole network's maps would take gigabytes
        return values[self.program.output]


def unknown_operations(program: Program) -> list[Operation]:
    """Return the operations that the table lacks."""
    return [o for o in program.operations if o.type not in OPERATIONS]


def check_operations(program: Program) -> None:
    """Raise UnsupportedOperationError, naming all of them, if the table lacks operations."""
    if unknown := unknown_operations(program):
        names = ", ".join(f"{o.type} ({o.results[0].name})" for o in unknown)
        raise UnsupportedOperationError(
            f"the Core ML program has operations that cannot be evaluated without macOS: {names}; "
            "add them to mil_ops.py, or verify on a Mac"
        )


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
