import pytest
from fastseg_runtime.engines.engine import PRECISIONS
from fastseg_targets.device import device_names, load_device
from fastseg_targets.target import (
    load_target,
    parse_target,
    select_targets,
    target_names,
)

PROMISED = {
    *("jetson-fp16", "jetson-int8", "cpu-fp32", "cpu-int8", "cpu-int8-weights", "pytorch"),
    *("android-fp32", "android-fp16", "android-int8", "raspberrypi-int8"),
    *("ios-fp16", "ios-int8", "ios-palettized"),
    *("rockchip-fp16", "rockchip-int8", "snapdragon-int8"),
}
GOOD = 'description = "d"\nexporter = "onnx"\nladder = ["int8", "fp32"]\nextra = "onnx"\n'


def test_every_promised_target_is_there() -> None:
    assert set(target_names()) >= PROMISED


@pytest.mark.parametrize("name", target_names())
def test_a_target_names_boards_that_exist_and_limits_that_can_fail(name: str) -> None:
    target = load_target(name)
    assert set(target.devices) <= set(device_names())
    assert 0 < target.gate.miou_drop <= target.gate.class_drop < 0.1
    assert len(set(target.ladder)) == len(target.ladder)


@pytest.mark.parametrize("name", [n for n in device_names() if not n.startswith("generic-")])
def test_a_board_that_no_target_names_says_that_networks_run_on_its_cpu(name: str) -> None:
    device = load_device(name)
    named = {board for target in target_names() for board in load_target(target).devices}
    assert device.family in named or "networks run on the CPU" in str(device.not_measured)


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["jetson-*"], ["jetson-fp16", "jetson-int8"]),
        (["cpu-int8", "cpu-*"], ["cpu-int8", "cpu-fp32", "cpu-int8-weights"]),
        (["all"], target_names()),
    ],
)
def test_globs_select_each_target_once(patterns: list[str], names: list[str]) -> None:
    assert [target.name for target in select_targets(patterns)] == names


def test_a_mistyped_target_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(ValueError, match="did you mean jetson-fp16"):
        select_targets(["jetson-fp61"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "speed = 3", r"unknown keys \['speed'\]"),
        (GOOD + "[gate]\nmiou = 0.01", r"unknown keys \['miou'\]"),
        (GOOD + "[gate]\nmiou_drop = 2.0", "gate: miou_drop is 2.0; expected a fraction, 0.02"),
        (GOOD + "[gate]\nmiou_drop = 1", r"gate: miou_drop is 1(\.0)?; expected a fraction"),
        (GOOD + "[gate]\nclass_drop = -0.1", "gate: class_drop is -0.1; expected a fraction"),
        (GOOD.replace('exporter = "onnx"', ""), r"missing keys \['exporter'\]"),
        (GOOD.replace('"int8", "fp32"', '"int4"'), "choose from"),
        (GOOD.replace('"int8", "fp32"', ""), "choose from"),
        (GOOD.replace('"d"', "3"), "expected str"),
    ],
)
def test_a_wrong_file_is_refused_by_name_and_key(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"board\.toml.*{message}"):
        parse_target("board", text)


def test_a_target_is_named_by_its_file_and_in_plain_letters() -> None:
    with pytest.raises(ValueError, match=r"unknown keys \['name'\]; a target is named by its file"):
        parse_target("board", GOOD + 'name = "../../x"\n')
    for name in ("..", "my board", "a/b", "", "größe", "board.", ".board"):
        with pytest.raises(ValueError, match="a target is named by its file, of ASCII letters"):
            parse_target(name, GOOD)
    for name in ("Board_2.1-int8", "b"):
        assert parse_target(name, GOOD).name == name


def test_a_limit_of_one_is_none() -> None:
    assert parse_target("board", GOOD + "[gate]\nclass_drop = 1.0").gate.class_drop == 1


def test_an_int8_target_has_a_way_down_to_float() -> None:
    for target in map(load_target, target_names()):
        assert target.ladder[-1] in ("fp32", "fp16"), target.name
        assert set(target.ladder) <= set(PRECISIONS)


def test_a_target_for_dlas_is_refused_with_the_reason_and_what_to_take_instead() -> None:
    with pytest.raises(ValueError, match=r"no Q/DQ graph on a DLA.*Take jetson-int8"):
        load_target("jetson-dla-int8")
    with pytest.raises(ValueError, match="jetson-dla-int8 is not made"):
        select_targets(["cpu-fp32", "jetson-dla-int8"])
