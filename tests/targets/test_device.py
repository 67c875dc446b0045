import contextlib
import os

import pytest
from fastseg_targets.device import (
    Device,
    boards_folder,
    device_names,
    load_device,
    parse_device,
    read_device,
    recognise,
    user_devices,
)
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
ROCKCHIP = [
    ("rk3588", ["radxa,rock-5b", "rockchip,rk3588"]),
    ("rk3588", ["xunlong,orangepi-5", "rockchip,rk3588s"]),
    ("rk3576", ["armsom,sige5", "rockchip,rk3576"]),
    ("rk3566", ["radxa,zero3w", "rockchip,rk3566"]),
]

MINIMAL = 'description = "a board"\n[recognise]\nmodel = ["Board"]\n'


@pytest.mark.parametrize(("name", "model", "compatible"), BOARDS)
def test_board_is_recognised_by_its_part_number_and_by_its_model(name, model, compatible):
    assert recognise({"board": {"model": model, "compatible": compatible}}).name == name
    assert recognise({"board": {"model": model}}).name == name


@pytest.mark.parametrize(("name", "compatible"), ROCKCHIP)
def test_a_board_is_recognised_by_rockchips_chip_on_it(name, compatible):
    assert recognise({"board": {"model": "A board", "compatible": compatible}}).name == name


@pytest.mark.parametrize("board", ["radxa,dragon-q6a", "fairphone,fp5"])
def test_another_board_or_phone_with_qualcomms_chip_is_no_rb3(board):
    for chip in ("qcom,qcs6490", "qcom,qcm6490"):
        probe = {"board": {"model": "X", "compatible": [board, chip]}}
        assert recognise(probe).name.startswith("generic")


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
            MINIMAL + "[[power.totals]]\nrails = []\nscope = 'system'\n",
            "a total without rails; name those that add up to it",
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


# Product, its part number ("" where the board names none), memory that Linux shows in MB, modes of
# nvpmodel -> which product it is, its memory in MB, bandwidth in GB/s, int8 in TOPS (dense).
SKUS = [
    ("orin-nano-4gb", "p3767-0004", 3400, ["15W", "7W"], 4096, 34.1, 10.24),
    ("orin-nano-4gb-super", "p3767-0004", 3400, ["15W", "MAXN_SUPER"], 4096, 51.2, 16.71),
    ("orin-nano-8gb", "p3767-0003", 7451, ["15W", "7W"], 8192, 68.3, 20.48),
    ("orin-nano-8gb-super", "p3767-0005", 7620, ["15W", "25W", "MAXN_SUPER"], 8192, 102.4, 33.42),
    ("orin-nx-8gb", "p3767-0001", 7337, ["MAXN", "10W"], 8192, 102.4, 25.07),
    ("orin-nx-8gb-super", "p3767-0001", 7337, ["MAXN_SUPER"], 8192, 102.4, 38.44),
    ("orin-nx-16gb", "p3767-0000", 15389, ["MAXN", "10W"], 16384, 102.4, 30.08),
    ("orin-nx-16gb-super", "p3767-0000", 15389, ["MAXN_SUPER", "10W"], 16384, 102.4, 38.44),
    ("agx-orin-32gb", "p3701-0004", 29800, ["MAXN"], 32768, 204.8, 53.33),
    ("agx-orin-64gb", "p3701-0005", 62841, ["MAXN"], 65536, 204.8, 85.2),
    ("agx-orin-devkit-32gb", "p3701-0000", 29800, ["MAXN"], 32768, 204.8, 85.2),
    ("agx-orin-industrial", "p3701-0008", 62841, ["MAXN"], 65536, 204.8, 77.66),
    ("thor-t4000", "p3834-0000", 62000, ["MAXN"], 65536, 273.0, 300.0),
    ("thor-t5000", "p3834-0008", 125772, ["MAXN"], 131072, 273.0, 517.5),
    ("jetson-tx2-nx", "p3636-0001", 3900, ["MAXN"], 4096, 51.2, None),
    ("jetson-tx2-8gb", "p3310-1000", 7852, ["MAXN"], 8192, 59.7, None),
    ("jetson-nano-2gb", "p3448-0003", 1980, ["MAXN"], 2048, 25.6, None),
    ("jetson-nano-4gb", "p3448-0000", 3964, ["MAXN"], 4096, 25.6, None),
    ("jetson-xavier-nx-16gb", "p3668-0003", 15000, ["MODE_15W_6CORE"], 16384, 59.7, 13.52),
]


@pytest.mark.parametrize(("name", "part", "mb", "modes", "memory_mb", "gb_s", "tops"), SKUS)
def test_product_of_a_family_is_told_by_part_number_and_modes_and_has_its_own_figures(
    name, part, mb, modes, memory_mb, gb_s, tops
):
    probe = {
        "board": {"compatible": [f"nvidia,p0000-0000+{part}"]},
        "memory": {"total_kb": 1024 * mb},
        "power_modes": {mode: number for number, mode in enumerate(modes)},
    }
    device = recognise(probe)
    assert (device.is_sku, device.memory_mb) == (name, memory_mb)
    assert device.peak.bandwidth_gb_s == gb_s and device.peak.source
    assert device.peak.int8_gops == (tops and pytest.approx(1e3 * tops, rel=1e-3))


@pytest.mark.parametrize(
    ("model", "mb", "name"),
    [
        ("Raspberry Pi 5 Model B Rev 1.1", 1010, "raspberry-pi-5-1gb"),
        ("Raspberry Pi 5 Model B Rev 1.0", 1990, "raspberry-pi-5-2gb"),
        ("Raspberry Pi 5 Model B Rev 1.0", 4045, "raspberry-pi-5-4gb"),
        ("Raspberry Pi 5 Model B Rev 1.0", 4096, "raspberry-pi-5-4gb"),
        ("Raspberry Pi 5 Model B Rev 1.0", 4097, "raspberry-pi-5-8gb"),
        ("Raspberry Pi 5 Model B Rev 1.1", 16200, "raspberry-pi-5-16gb"),
        ("Raspberry Pi 4 Model B Rev 1.5", 3791, "raspberry-pi-4-4gb"),
        ("AGX Orin of a carrier that hides its module", 29800, "agx-orin-32gb"),
        ("AGX Orin of a carrier that hides its module", 62841, "agx-orin-64gb"),
        ("Jetson Thor of a carrier that hides its module", 62000, "thor-t4000"),
        ("Raspberry Pi 5 Model B Rev 1.0", None, ""),  # nobody says: the family
        ("Raspberry Pi 5 Model B Rev 9.0", 33000, ""),  # more than any has
    ],
)
def test_where_no_part_number_is_known_the_memory_tells_the_product(model, mb, name):
    probe = {"board": {"model": model}, "memory": {"total_kb": mb and 1024 * mb}}
    assert recognise(probe).is_sku == name


@pytest.mark.parametrize("name", device_names())
def test_every_product_can_be_told_from_its_family_and_its_figures_have_a_source(name):
    device = load_device(name)
    for sku in device.sku:
        assert sku.compatible or sku.memory_mb
        if sku.peak != device.peak:
            assert sku.peak.source != device.peak.source
    assert len({sku.name for sku in device.sku}) == len(device.sku)


PCS = [
    ("dgx-spark", {"dmi": ["NVIDIA", "NVIDIA_DGX_Spark", "P4242", "chassis 35"]}, None, "aarch64"),
    ("dgx-spark", {"dmi": ["ASUSTeK", "Ascent GX10"]}, None, "aarch64"),
    ("x86-mini-pc", {"dmi": ["AZW", "EQ12", "chassis 35"]}, "Intel(R) N100", "x86_64"),
    ("x86-mini-pc", {"dmi": ["Default string", "chassis 3"]}, "Intel(R) N97", "x86_64"),
    ("x86-mini-pc", {"model": "NUC12WSHi5", "dmi": ["Intel(R) Client Systems"]}, None, "x86_64"),
    ("generic-arm64", {"dmi": ["Acme", "chassis 35"]}, None, "aarch64"),
    ("generic-x86", {"dmi": ["LENOVO", "chassis 10"]}, "Intel(R) Core(TM) i7-1260P", "x86_64"),
]


@pytest.mark.parametrize(("name", "board", "cpu", "machine"), PCS)
def test_pc_is_recognised_by_its_dmi_or_its_processor(name, board, cpu, machine):
    probe = {"board": board, "cpu": {"model": cpu}, "system": {"machine": machine}}
    assert recognise(probe).name == name


def test_mini_pc_counts_as_a_pc_for_targets_and_power():
    mini, generic = load_device("x86-mini-pc"), load_device("generic-x86")
    assert mini.family == "generic-x86" and mini.power == generic.power
    assert not mini.recognise.is_general  # it is no name for any PC


def test_bound_is_that_of_the_clocks_that_are_set():
    peak = load_device("orin-nano").peak
    at_15w = peak.at(612.0, 2133.0)
    assert at_15w.int8_gops == pytest.approx(33423.4 * 612 / 1020)
    assert at_15w.bandwidth_gb_s == pytest.approx(102.4 * 2133 / 3199)
    assert peak.at(None, None) == peak
    assert peak.at(1020.0, 4000.0) == peak  # a limit above what there is limits nothing
    cpu = load_device("raspberry-pi-5").peak
    assert cpu.at(612.0, 2133.0) == cpu  # no GPU's clock


MINE = 'description = "Our robot"\nlike = "orin-nx"\n[recognise]\ncompatible = ["acme,robot"]\n'


@pytest.fixture
def boards(tmp_path, monkeypatch):
    """The user's folder of boards."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    boards_folder().mkdir(parents=True)
    return boards_folder()


def test_boards_of_the_user_stand_in_their_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for said in (None, "", "relative/path"):  # as the XDG specification wants it
        monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
        if said is not None:
            monkeypatch.setenv("XDG_CONFIG_HOME", said)
        assert boards_folder() == tmp_path / ".config/fastseg/boards"
    assert user_devices() == []  # no folder is no mistake


def test_board_of_the_user_is_taken_before_one_that_ships_and_inherits_what_it_leaves_out(boards):
    (boards / "robot.toml").write_text(MINE)
    probe = {
        "board": {"compatible": ["acme,robot", "nvidia,p3767-0001"]},
        "power_modes": {"MAXN": 0},
    }
    device = recognise(probe)
    assert (device.name, device.family, device.is_sku) == ("robot", "orin-nx", "orin-nx-8gb")
    assert device.power == load_device("orin-nx").power and device.unified_memory
    assert recognise({"board": {"compatible": ["nvidia,p3767-0001"]}}).name == "orin-nx"


def test_what_a_board_of_the_user_says_itself_holds_for_every_product_that_it_inherits(boards):
    said = MINE + "[peak]\nbandwidth_gb_s = 50.0\nsource = 'our own memory test'\n"
    (boards / "robot.toml").write_text(said)
    board = {"compatible": ["acme,robot", "nvidia,p3767-0001"]}
    device = recognise({"board": board, "power_modes": {"MAXN": 0}})
    assert (device.is_sku, device.description) == ("orin-nx-8gb", "Our robot")
    assert (device.peak.bandwidth_gb_s, device.peak.source) == (50.0, "our own memory test")
    assert device.peak.gpu_mhz == 765.0  # what it does not say is the product's
    (boards / "robot.toml").write_text(said + '[[sku]]\nname = "a"\ndescription = "A"\n'
                                       'compatible = ["acme,robot"]\n')  # fmt: skip
    assert recognise({"board": board}).description == "A"


def test_what_editors_and_macos_leave_beside_a_board_is_no_board(boards):
    (boards / "robot.toml").write_text(MINE)
    (boards / ".#robot.toml").symlink_to("me@pc.1234:1")  # Emacs' lock
    (boards / "._robot.toml").write_bytes(b"\0\5\x16\7")
    assert [device.name for device in user_devices()] == ["robot"]


def test_board_of_the_user_like_a_generic_one_is_not_taken_for_every_machine(boards):
    (boards / "rock.toml").write_text(MINE.replace("orin-nx", "generic-arm64"))
    assert recognise({"system": {"machine": "aarch64"}}).name == "generic-arm64"
    assert recognise({"board": {"compatible": ["acme,robot"]}}).family == "generic-arm64"


def test_board_that_the_user_names_is_taken_whatever_the_probe_says(tmp_path):
    file = tmp_path / "meter.toml"
    file.write_text('like = "raspberry-pi-4"\nnotes = ["on the bench"]\n')
    device = recognise({"board": {"model": "NVIDIA Thor"}}, read_device(file))
    assert (device.name, device.notes) == ("meter", ("on the bench",))
    assert device.recognise == load_device("raspberry-pi-4").recognise


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINE.replace("orin-nx", "orin"), r"robot.toml: like: no device 'orin'; choose one of \["),
        (MINE + "colour = 1\n", r"robot.toml: recognise: unknown keys \['colour'\]; valid keys"),
        (MINE.replace("[recognise]", "[recognise"), r"robot.toml: Expected .* \(at line 3"),
        ("name = 'x'\n" + MINE, r"unknown keys \['name'\]; a board is named by its file"),
        (MINE + "[peak]\nbandwidth_gb_s = -1\n", r"peak: expected bandwidth_gb_s above 0, got -1"),
        (MINE + "[peak]\nfp32_gflops = inf\n", r"peak.fp32_gflops: expected a finite number"),
        (MINE.replace('"acme,robot"', '" "'), r"recognise: expected a text or more in one of"),
        (MINE.replace('"acme,robot"', ""), r"recognise: expected a text or more in one of"),
        ("sku = 1\n" + MINE, r"robot.toml: sku: expected list, got 1"),
        ("sku = [1]\n" + MINE, r"robot.toml: sku\[0\]: expected a table, got 1"),
        ("peak = 1\n" + MINE, r"robot.toml: peak: expected a table, got 1"),
        ("like = 1\n", r"robot.toml: "),
        ("like = 'generic-x86'\ndescription = 1", r"robot.toml: description: expected str, got 1"),
        (b"\xff\xfe", r"robot.toml: 'utf-8' codec can't decode"),
        ("#" * (65 << 10), r"robot.toml: 66560 bytes, expected a board's record of at most 65536"),
        ("a = " + "[" * 30_000 + "]" * 30_000, r"robot.toml: it is nested too deep"),
    ],
)
def test_mistake_in_a_board_of_the_user_is_one_line_with_the_file_and_what_to_do(
    boards, text, message
):
    file = boards / "robot.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as found:
        recognise({})
    assert str(found.value).startswith(str(file)) and "\n" not in str(found.value)
    assert str(found.value).endswith("docs/remote_bench.md has the form")


def test_board_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no.toml: No such file or directory; expected a board's"):
        read_device(tmp_path / "no.toml")


@pytest.mark.parametrize("name", ["/dev/zero", "pipe.toml", "."])
def test_what_is_no_file_is_no_board_and_nothing_is_read_of_it(tmp_path, name):
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "robot.toml").symlink_to(tmp_path / name)
    with pytest.raises(ValueError, match=r"robot.toml: no regular file; expected a board's"):
        read_device(tmp_path / "robot.toml")


@given(st.text())
def test_any_text_is_a_board_or_a_mistake_that_is_named(text):
    with contextlib.suppress(ValueError):
        parse_device("made-up", text)


def test_a_service_without_a_home_has_no_boards_of_its_own(monkeypatch):
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as where no user is known
    assert recognise({}).name == "generic-x86"


@pytest.mark.parametrize(
    ("board", "machine", "name"),
    [
        ({"dmi": ["Dell Inc.", "OptiPlex GX100"]}, "x86_64", "generic-x86"),
        ({"model": "Thor96"}, "aarch64", "generic-arm64"),
    ],
)
def test_a_name_that_holds_another_boards_is_not_that_board(board, machine, name):
    assert recognise({"board": board, "system": {"machine": machine}}).name == name
