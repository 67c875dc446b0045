"""The evaluator on programs written by hand; no vendor library."""

from typing import Literal

import pytest
import torch
from fastseg_exporters.coreml.mil_program import (
    Evaluator,
    Operand,
    Operation,
    Program,
    Ref,
    Result,
    UnsupportedOperationError,
)

IMAGE = torch.arange(24, dtype=torch.uint8).reshape(1, 2, 4, 3)


def operation(type_: str, result: str, dtype: str = "fp32", /, **inputs: Operand) -> Operation:
    return Operation(type_, inputs, (Result(result, dtype),))


def program(*operations: Operation, color: Literal["rgb", "bgr"] = "rgb") -> Program:
    output = operations[-1].results[0].name
    return Program("image", color, 4, 2, operations, output)


def test_the_image_arrives_as_channels_of_its_bytes() -> None:
    evaluate = Evaluator(program(operation("relu", "out", x=Ref("image"))))
    assert torch.equal(evaluate(IMAGE), IMAGE.permute(0, 3, 1, 2).float())


def test_a_bgr_program_gets_the_channels_of_an_rgb_image_reversed() -> None:
    evaluate = Evaluator(program(operation("relu", "out", x=Ref("image")), color="bgr"))
    assert torch.equal(evaluate(IMAGE), IMAGE.permute(0, 3, 1, 2).flip(1).float())


def test_results_are_rounded_and_overflow_as_the_type_they_are_stored_in() -> None:
    evaluate = Evaluator(
        program(
            operation("mul", "exact", x=Ref("image"), y=10_000.0),
            operation("add", "out", "fp16", x=Ref("exact"), y=0.4),
        )
    )
    result = evaluate(IMAGE).flatten()
    assert result[0] == torch.tensor(0.4).half().float()
    assert torch.isinf(result.max())  # 230000 is beyond fp16's 65504


def test_ids_come_out_as_int32() -> None:
    evaluate = Evaluator(
        program(operation("reduce_argmax", "classes", "int32", x=Ref("image"), axis=1))
    )
    ids = evaluate(IMAGE)
    assert ids.dtype == torch.int32 and ids.shape == (1, 2, 4) and bool((ids == 2).all())


def test_a_program_may_branch_and_join_and_use_a_value_twice() -> None:
    evaluate = Evaluator(
        program(
            Operation(
                "split",
                {"x": Ref("image"), "axis": 1, "num_splits": 3},
                tuple(Result(name, "fp32") for name in "rgb"),
            ),
            operation("add", "twice", x=Ref("r"), y=Ref("r")),
            operation("concat", "out", values=(Ref("twice"), Ref("b"), Ref("r")), axis=1),
        )
    )
    r, _, b = IMAGE.permute(0, 3, 1, 2).float().split(1, 1)
    for _ in range(2):  # a second run starts from the same weights
        assert torch.equal(evaluate(IMAGE), torch.cat([2 * r, b, r], 1))


def test_operations_outside_the_table_are_all_named_before_anything_runs() -> None:
    unknown = program(
        operation("topk", "first", x=Ref("image")), operation("cumsum", "second", x=Ref("first"))
    )
    with pytest.raises(UnsupportedOperationError, match=r"topk \(first\), cumsum \(second\)"):
        Evaluator(unknown)


def test_an_input_that_an_operation_does_not_know_is_an_error_not_ignored() -> None:
    evaluate = Evaluator(program(operation("relu", "out", x=Ref("image"), slope=0.5)))
    with pytest.raises(UnsupportedOperationError, match=r"relu \(out\).*slope"):
        evaluate(IMAGE)


def test_a_type_that_cannot_be_stored_is_an_error_that_names_it() -> None:
    evaluate = Evaluator(program(operation("relu", "out", "int4", x=Ref("image"))))
    with pytest.raises(UnsupportedOperationError, match=r"int4"):
        evaluate(IMAGE)
