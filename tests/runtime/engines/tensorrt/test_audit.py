"""The audit on what the engine inspector of several releases writes."""

import json
from typing import Any

from fastseg_runtime.engines.tensorrt.builder import audit_layers


def conv(datatype: str, name: str = "c", kind: str = "CaskConvolution") -> dict[str, Any]:
    """Return a layer as ProfilingVerbosity.DETAILED shows it."""
    return {
        "Name": name,
        "LayerType": kind,
        "Inputs": [{"Name": "x", "Dimensions": [1, 8, 4, 4], "Format/Datatype": datatype}],
        "Outputs": [{"Name": "y", "Dimensions": [1, 8, 4, 4], "Format/Datatype": "Float"}],
        "ParameterType": "Convolution",
    }


def inspect(*layers: Any) -> str:
    return json.dumps({"Layers": list(layers), "Bindings": ["image", "classes"]})


def test_datatypes_are_read_in_the_words_of_tensorrt_8_and_10() -> None:
    words = {
        "fp16": ["Channel major FP16 format where channel % 8 == 0", "Half"],
        "fp32": ["Row major linear FP32", "Float"],
        "int8": ["Thirty-two wide channel vectorized row major Int8 format.", "Int8"],
        "unknown": ["N/A due to dynamic shapes"],
    }
    for precision, texts in words.items():
        for text in texts:
            assert audit_layers(inspect(conv(text)), "fp32").counts == {precision: 1}


def test_layers_that_are_no_convolutions_do_not_count() -> None:
    reformat = {"Name": "r", "LayerType": "Reformat", "Inputs": [{"Format/Datatype": "Float"}]}
    audit = audit_layers(inspect(reformat, conv("Half")), "fp16")
    assert audit.counts == {"fp16": 1} and audit.passed


def test_depthwise_and_gemm_convolutions_count_whatever_their_kernel_is_called() -> None:
    layers = [conv("Half", kind="CudaDepthwiseConvolution"), conv("Half", kind="CaskGemm")]
    assert audit_layers(inspect(*layers), "fp16").counts == {"fp16": 2}


def test_half_of_the_convolutions_is_enough_and_less_is_not() -> None:
    layers = [conv("Int8"), conv("Half", "stem")]
    assert audit_layers(inspect(*layers), "int8").passed
    audit = audit_layers(inspect(*layers, conv("Float", "head")), "int8")
    assert not audit.passed
    assert audit.others == ("stem", "head")
    assert str(audit) == "convolutions: 1 in fp16, 1 in fp32, 1 in int8"


def test_int8_layers_are_no_objection_to_fp16_and_nothing_is_to_fp32() -> None:
    assert audit_layers(inspect(conv("Int8")), "fp16").passed
    assert audit_layers(inspect(conv("Half")), "fp32").passed


def layer(kind: str, datatype: str, name: str = "l") -> dict[str, Any]:
    """Return a layer that is no convolution."""
    return {"Name": name, "LayerType": kind, "Inputs": [{"Format/Datatype": datatype}]}


def test_every_class_of_layers_is_counted_and_what_computes_in_float32_is_told() -> None:
    others = [layer("Reduce", "Float"), layer("Reduce", "Half"), layer("Reformat", "Float")]
    others += [layer("Resize", "Float"), layer("TopK", "Int32"), layer("ElementWise", "UInt8")]
    audit = audit_layers(inspect(conv("Int8"), *others), "int8")
    assert audit.passed and audit.counts == {"int8": 1}
    assert audit.layers == {
        "Reduce": {"fp32": 1, "fp16": 1},
        "Reformat": {"fp32": 1},
        "Resize": {"fp32": 1},
        "TopK": {"whole numbers": 1},
        "ElementWise": {"whole numbers": 1},
    }
    assert str(audit) == "convolutions: 1 in int8; others in fp32: 1 Reduce, 1 Resize"


def test_where_no_convolution_is_shown_half_of_what_computes_may_be_in_float32() -> None:
    fused = [layer("kgen", "Half", "a"), layer("kgen", "Float", "b"), layer("Reformat", "Float")]
    for precision in ("fp16", "int8"):
        assert audit_layers(inspect(*fused), precision).passed
        audit = audit_layers(inspect(*fused, layer("gemm", "Float", "c")), precision)
        assert not audit.passed and audit.others == ("b", "c")
    assert audit_layers(inspect(*fused, layer("gemm", "Float")), "fp32").passed


def test_layer_names_alone_cannot_be_judged() -> None:
    for text in (inspect("conv1 + relu", "conv2"), inspect(conv("N/A")), "no JSON", inspect()):
        audit = audit_layers(text, "fp16")
        assert audit.passed and not audit.readable
