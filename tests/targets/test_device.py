import pytest
from fastseg_targets.device import Device, device_names, load_device, parse_device, recognise
from hypothesis import given
from hypothesis import strategies as st

# What boards of each kind have in /proc/device-tree/model and /proc/device-tree/compatible.
BOARDS = [
    ("jetson-nano", "NVIDIA Jetson Nano Developer Kit", ["nvidia,jetson-nano", "nvidia,tegra210"]),
    ("jetson-nano", "NVIDIA Jetson Nano 2GB Developer Kit", ["nvidia,p3542-0000+p3448-0003"]),
    ("jetson-tx2", "quill", ["nvidia,quill", "nvidia,tegra186"]),
    ("jetson-tx2", "NVIDIA Jetson TX2 NX Developer Kit", ["nvidia,p3509-0000+p3636-0001"]),
    ("jetson-xavier-nx", "NVIDIA Jetson Xavier NX Developer Kit", ["nvidia,p3509-0000+p3668-0000"]),
    ("jetson-agx-xavier", "Jetson-AGX", ["nvidia,p2972-0000", "nvidia,tegra194"]),
    ("orin-nano", "NVIDIA Jetson Orin Nano Developer Kit", ["nvidia,p3768-0000+p3767-0005"]),
    ("orin-nx", "NVIDIA Orin NX Developer Kit", ["nvidia,p3768-0000+p3767-0000"]),
    ("agx-orin", "NVIDIA Jetson AGX Orin Developer Kit", ["nvidia,p3737-0000+p3701-0005"]),
    ("thor", "NVIDIA Jetson AGX Thor Developer Kit", ["nvidia,p3971-0080+p3834-0008"]),
    ("raspberry-pi-4", "Raspberry Pi 4 Model B Rev 1.5", ["raspberrypi,4-model-b"]),
    ("raspberry-pi-5", "Raspberry Pi 5 Model B Rev 1.0", ["raspberrypi,5-model-b"]),
]

MINIMAL = 'description = "a board"\n[recognise]\nmodel = ["Board"]\n'


@pytest.mark.parametrize(("name", "model", "compatible"), BOARDS)
def test_board_is_recognised_by_its_part_number_and_by_its_model(name, model, compatible):
    assert recognise({"board": {"model": model, "compatible": compatible}}).name == name
    assert recognise({"board": {"model": model}}).name == name


def test_part_number_wins_over_a_model_name_that_names_the_carrier():
    board = {
        "model": "NVIDIA Jetson Orin Nano Developer Kit",
        "compatible": ["nvidia,p3768-0000+p3767-0001"],
    }
    assert recognise({"board": board}).name == "orin-nx"


@pytest.mark.parametrize(
    ("machine", "name"), [("x86_64", "generic-x86"), ("aarch64", "generic-arm64")]
)
def test_unknown_board_becomes_the_generic_device_of_its_architecture(machine, name):
    probe = {"board": {"model": "Acme", "compatible": None}, "system": {"machine": machine}}
    assert recognise(probe).name == name


@given(st.text(), st.lists(st.text()))
def test_recognise_answers_whatever_the_board_says(model, compatible):
    assert recognise({"board": {"model": model, "compatible": compatible}}).name in device_names()


@pytest.mark.parametrize("name", device_names())
def test_every_device_says_how_to_recognise_it_and_where_its_figures_come_from(name):
    device = load_device(name)
    known = device.recognise
    assert known.model or known.compatible or known.machine
    rates = (device.peak.fp32_gflops, device.peak.bandwidth_gb_s)
    assert device.peak.source or rates == (None, None)
    assert device.power.totals or device.power.missing


@pytest.mark.parametrize("name", device_names())
def test_half_precision_and_int8_are_never_slower_than_float_at_peak(name):
    peak = load_device(name).peak
    rates = [rate for rate in (peak.fp32_gflops, peak.fp16_gflops, peak.int8_gops) if rate]
    assert rates == sorted(rates)


def test_jetson_totals_are_those_of_the_rail_table():
    assert [t.rails for t in load_device("agx-orin").power.totals] == [
        ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
    ]
    assert "VDDQ_VDD2_1V8AO" in load_device("agx-orin").power.do_not_add
    scopes = [(t.rails[0], t.scope) for t in load_device("thor").power.totals]
    assert scopes == [("VIN", "system"), ("VDD_GPU", "module")]


def test_bound_is_the_slower_of_arithmetic_and_memory():
    text = MINIMAL + "[peak]\nfp32_gflops = 1000\nbandwidth_gb_s = 10\nsource = 'made up'\n"
    device = parse_device("made-up", text)
    assert device.bound_ms(10**9, 10**6, "fp32") == pytest.approx(2.0)  # 2 GFLOP at 1 TFLOP/s
    assert device.bound_ms(10**9, 10**8, "fp32") == pytest.approx(10.0)  # 100 MB at 10 GB/s
    assert device.bound_ms(10**9, 10**6, "int8") == pytest.approx(0.1)  # no rate: memory alone
    assert load_device("generic-x86").bound_ms(10**9, 10**6, "fp32") is None


def test_bound_refuses_a_precision_it_does_not_know():
    with pytest.raises(ValueError, match=r"unknown precision 'fp12'; choose one of .*int8"):
        load_device("orin-nano").bound_ms(1, 1, "fp12")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "colour = 1\n", r"made-up.toml: recognise: unknown keys \['colour'\]"),
        ("colour = 1\n" + MINIMAL, r"made-up.toml: unknown keys \['colour'\]; valid keys are"),
        ('description = "x"\n', r"made-up.toml: missing keys \['recognise'\]"),
        ("memory_mb = 'much'\n" + MINIMAL, r"made-up.toml: memory_mb: expected int, got 'much'"),
        ("memory_mb = true\n" + MINIMAL, r"expected int, got True"),
        ("notes = [1]\n" + MINIMAL, r"notes\[0\]: expected str, got 1"),
        (MINIMAL + "[power]\nstep_mw = { A = 'x' }\n", r"step_mw.A: expected int or float"),
        (
            MINIMAL + "[[power.totals]]\nrails = ['A']\nscope = 'galaxy'\n",
            r"unknown scope 'galaxy'; choose one of",
        ),
        (
            MINIMAL
            + "[power]\ndo_not_add = ['A']\n[[power.totals]]\nrails = ['A']\nscope = 'soc'\n",
            r"\['A'\] cannot be both summed and in do_not_add",
        ),
    ],
)
def test_mistake_in_a_board_file_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse_device("made-up", text)


def test_unknown_device_is_answered_with_the_names_there_are():
    with pytest.raises(ValueError, match=r"no device 'orin'; choose one of .*'orin-nano'"):
        load_device("orin")


def test_board_is_data_that_cannot_be_changed():
    device: Device = load_device("orin-nano")
    with pytest.raises(AttributeError):
        device.name = "other"  # type: ignore[misc]
