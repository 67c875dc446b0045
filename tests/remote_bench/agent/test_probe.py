import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from fastseg_runtime.arrays.strict_tables import TableError, from_table
from fastseg_targets.device import recognise
from remote_bench.agent.board import Board
from remote_bench.agent.channel import Failure
from remote_bench.agent.environment import Environment
from remote_bench.agent.probe import probe
from remote_bench.agent.rails import ina_hwmon, ina_iio, nvml, rapl, raspberry_pmic
from remote_bench.agent.settings import read_power_mode, read_settings, set_power_mode
from remote_bench.agent.software import jetpack_of, read_l4t
from remote_bench.analysis.result import Probe

BOARDS = tomllib.loads(Path(__file__).parents[1].joinpath("boards.toml").read_text("utf-8"))
JETSONS = [name for name in BOARDS if "release" in BOARDS[name]]
# As NVIDIA's own are: clocks of the parts above all modes, and 0 or -1 for "no limit".
NVPMODEL = """
< PARAM TYPE=CLOCK NAME=EMC >
MAX_FREQ /sys/kernel/nvpmodel_emc_cap/emc_iso_cap

< POWER_MODEL ID=1 NAME=15W >
CPU_ONLINE CORE_0 1
TPC_POWER_GATING TPC_PG_MASK 240
CPU_A78_0 MAX_FREQ 1510400
GPU MIN_FREQ 0
GPU MAX_FREQ 624750000
EMC MAX_FREQ 2133000000

< POWER_MODEL ID=2 NAME=MAXN_SUPER >
GPU MIN_FREQ 0
GPU MAX_FREQ -1
EMC MAX_FREQ 0
"""
AGENT = Path(sys.modules["remote_bench.agent.probe"].__file__).parent


@pytest.mark.parametrize("name", BOARDS)
def test_probe_of_a_made_board_is_recognised_as_that_board(made_board, name):
    data = probe(Board(str(made_board(name).root)))
    data["system"]["machine"] = "x86_64" if name.startswith("x86") else "aarch64"  # not this one's
    assert recognise(data).name == name
    assert json.loads(json.dumps(data)) == data
    from_table(Probe, data, "probe", ignore_unknown=True)
    assert data["board"]["model"] == BOARDS[name]["model"]  # without the NUL at its end
    assert "1421921" not in json.dumps(data)  # the serial number is hashed


@pytest.mark.parametrize("name", JETSONS)
def test_probe_of_a_jetson_has_its_jetpack_its_mode_and_its_rails(made_board, name):
    facts = BOARDS[name]
    data = probe(Board(str(made_board(name).root)))
    assert data["jetson"]["jetpack"] == facts["jetpack"]
    assert data["power_mode"]["name"] in facts["modes"]
    assert data["power_mode"]["fan"] == "quiet"
    rails = {rail for source in data["power_sources"] for rail in source["rails"]}
    wanted = [*facts.get("hwmon", {}), *facts.get("iio", {}), *facts.get("ina238", {})]
    assert rails >= set(wanted)
    assert data["tegrastats"] == facts["tegrastats"]
    assert data["counters"]["soctherm.oc3_event_cnt"] == 7


def test_probe_of_a_wrong_form_is_refused_and_says_where(made_board):
    data = probe(Board(str(made_board("thor").root)))
    data["board"]["compatible"] = {"a": 1}
    with pytest.raises(TableError, match=r"probe: board\.compatible: expected list"):
        from_table(Probe, data, "probe", ignore_unknown=True)


def test_constants_and_gated_sensors_are_no_temperatures(made_board):
    nano = probe(Board(str(made_board("jetson-nano").root)))
    assert "PMIC-Die" not in nano["environment"]["celsius"]
    orin = probe(Board(str(made_board("orin-nano").root)))
    assert orin["environment"]["celsius"]["cv0-thermal"] is None
    assert orin["environment"]["celsius"]["tj-thermal"] == pytest.approx(46.968)


def test_probe_lists_what_can_be_measured_and_the_fix_for_the_rest(made_board):
    rows = {row["what"]: row for row in probe(Board(str(made_board("orin-nano").root)))["readable"]}
    assert rows["power rails"]["ok"] and "VDD_IN" in rows["power rails"]["detail"]
    assert not rows["real CPU clock"]["ok"]
    assert all(row["ok"] or row["fix"] or os.geteuid() == 0 for row in rows.values())


def test_desktop_is_seen_by_its_programs(made_board, monkeypatch):
    running = {1: ("systemd", 0.1), 900: ("Xorg", 7.0), 950: ("gnome-shell", 9.0)}
    monkeypatch.setattr("remote_bench.agent.probe.processes", lambda: running)
    data = probe(Board(str(made_board("orin-nano").root)))
    assert data["desktop"] == ["Xorg", "gnome-shell"]
    rows = {row["what"]: row for row in data["readable"]}
    assert not rows["no desktop"]["ok"]
    assert rows["no desktop"]["fix"].startswith("Xorg, gnome-shell: sudo systemctl isolate")
    monkeypatch.setattr("remote_bench.agent.probe.processes", lambda: {1: ("systemd", 0.1)})
    rows = {r["what"]: r for r in probe(Board(str(made_board("thor").root)))["readable"]}
    assert rows["no desktop"]["ok"]


def test_probe_of_an_empty_tree_answers_with_nulls(tmp_path):
    data = probe(Board(str(tmp_path)))
    assert data["jetson"] is None and data["power_mode"] is None and data["power_sources"] == []
    assert recognise(data).name in ("generic-x86", "generic-arm64")


def test_voltage_times_current_is_the_power_and_shunt_channels_are_left_out(made_board):
    board = made_board("orin-nano")
    board.write("sys/class/hwmon/hwmon4/in4_label", "shunt\n")
    board.write("sys/class/hwmon/hwmon4/in7_label", "sum of shunt voltages\n")
    source = ina_hwmon(Board(str(board.root)))
    assert dict(zip(source.rails, source.read(), strict=True)) == {
        "VDD_IN": 4915.0,
        "VDD_CPU_GPU_CV": 450.0,
        "VDD_SOC": 1430.0,
    }


def test_sensor_without_a_label_is_a_rail_by_its_chip_and_address(made_board):
    board = made_board("raspberry-pi-4")
    for name, text in {"name": "ina226", "in1_input": "5000", "curr1_input": "100"}.items():
        board.write(f"sys/class/hwmon/hwmon9/{name}", text + "\n")
    device = board.root / "sys/bus/i2c/devices/1-0040"
    device.mkdir(parents=True)
    (board.root / "sys/class/hwmon/hwmon9/device").symlink_to(device)
    source = ina_hwmon(Board(str(board.root)))
    assert dict(zip(source.rails, source.read(), strict=True)) == {"ina226.1-0040.1": 500.0}


def test_clocks_of_memory_and_npu_are_read_beside_the_gpus(made_board):
    board = made_board("raspberry-pi-4")
    for name, hz in {
        "dmc": 2112000000,
        "fdab0000.npu": 1000000000,
        "fb000000.gpu": 800000000,
    }.items():
        board.write(f"sys/class/devfreq/{name}/cur_freq", f"{hz}\n")
    mhz = probe(Board(str(board.root)))["environment"]["mhz"]
    assert {n: mhz[n] for n in mhz if not n.startswith("cpu.")} == {
        "memory.dmc": 2112.0, "npu.fdab0000.npu": 1000.0, "gpu.fb000000.gpu": 800.0}  # fmt: skip


def test_cores_of_each_policy_are_read(made_board):
    board = made_board("jetson-tx2")
    for policy, cores in ((0, "0 3 4 5"), (1, "1 2")):
        board.write(f"sys/devices/system/cpu/cpufreq/policy{policy}/related_cpus", cores + "\n")
    found = probe(Board(str(board.root)))["cpu"]["policies"]
    assert found == {"0": [0, 3, 4, 5], "1": [1, 2]}


def test_bandwidth_of_a_snapdragons_bus_is_no_clock(made_board):
    board = made_board("raspberry-pi-4")
    for name, value in {"soc:qcom,gpubw": 7980, "5000000.qcom,kgsl-3d0": 585000000}.items():
        board.write(f"sys/class/devfreq/{name}/cur_freq", f"{value}\n")
    mhz = Environment(Board(str(board.root))).read()["mhz"]
    assert {n: mhz[n] for n in mhz if n.startswith("gpu.")} == {"gpu.5000000.qcom,kgsl-3d0": 585.0}


def test_of_a_server_with_a_hundred_zones_and_policies_all_are_read(made_board):
    board = made_board("raspberry-pi-4")
    for n in range(96):
        zone, cooler = f"sys/class/thermal/thermal_zone{n}", f"sys/class/thermal/cooling_device{n}"
        board.write(f"{zone}/type", f"zone-{n}\n")
        board.write(f"{zone}/temp", "45000\n" if n < 95 else "95000\n")
        board.write(f"{cooler}/type", f"idle-{n}\n" if n < 95 else "cpufreq-cpu7\n")
        board.write(f"{cooler}/cur_state", "1\n")
        board.write(f"sys/devices/system/cpu/cpufreq/policy{n}/scaling_cur_freq", "2800000\n")
    seen = Environment(Board(str(board.root))).read()
    assert seen["celsius"]["zone-95"] == 95.0 and seen["alerts"] == ["cpufreq-cpu7"]
    assert {f"cpu.policy{n}.requested" for n in range(96)} <= set(seen["mhz"])


@pytest.mark.parametrize(
    ("text", "trip", "celsius"),
    [("71", "105", 71.0), ("71000", "105", 71.0), ("-8", "105", -8.0), ("0", "105", 0.0),
     ("-150", "105000", -0.15), ("150", None, 0.15), ("150", "0", 0.15), ("250", "105", 0.25)],
)  # fmt: skip
def test_zone_whose_trip_point_is_in_whole_degrees_is_too(made_board, text, trip, celsius):
    board, zone = made_board("raspberry-pi-4"), "sys/class/thermal/thermal_zone0"
    board.write(f"{zone}/type", "soc-thermal\n")
    board.write(f"{zone}/temp", text + "\n")
    if trip is not None:
        board.write(f"{zone}/trip_point_0_temp", trip + "\n")
    assert Environment(Board(str(board.root))).read()["celsius"]["soc-thermal"] == celsius


@pytest.mark.parametrize(
    "name", ["soc", "vbat", "pm8150b-vbat-lvl0", "ibat-high", "pm7250b-bcl-lvl1"]
)
def test_charge_and_limits_of_a_battery_are_no_temperatures(made_board, name):
    board = made_board("raspberry-pi-4")
    board.write("sys/class/thermal/thermal_zone7/type", name + "\n")
    board.write("sys/class/thermal/thermal_zone7/temp", "97\n")
    assert name not in Environment(Board(str(board.root))).read()["celsius"]


def test_pi_without_access_to_its_firmware_is_told_which_group_to_join(made_board):
    board = made_board("raspberry-pi-5")
    board.tool("vcgencmd", 'echo "Can\'t open device file: /dev/vcio" >&2; exit 255')
    rows = {row["what"]: row for row in probe(Board(str(board.root)))["readable"]}
    assert not rows["throttling"]["ok"]
    assert "usermod -aG video" in rows["throttling"]["fix"]
    assert "/dev/vcio" in rows["throttling"]["fix"]


def test_cooling_of_the_cpu_by_its_clock_is_throttling_and_a_fan_is_none(made_board):
    board = made_board("raspberry-pi-4")
    for number, kind in enumerate(("pwm-fan", "thermal-cpufreq-0", "devfreq-fb000000.gpu")):
        board.write(f"sys/class/thermal/cooling_device{number}/type", kind + "\n")
        board.write(f"sys/class/thermal/cooling_device{number}/cur_state", "1\n")
    data = probe(Board(str(board.root)))
    assert data["environment"]["alerts"] == ["thermal-cpufreq-0", "devfreq-fb000000.gpu"]


@pytest.mark.parametrize("name", BOARDS)
def test_every_board_says_whether_its_throttling_can_be_watched(made_board, name):
    rows = {row["what"]: row for row in probe(Board(str(made_board(name).root)))["readable"]}
    assert rows["throttling"]["ok"] == ("release" in BOARDS[name] or "vcgencmd" in BOARDS[name])
    assert ("GPU load" in rows) == ("release" in BOARDS[name])


def test_gpu_clock_of_a_mode_is_read_from_nvpmodels_own_table(made_board):
    board = made_board("orin-nano")
    conf = (board.root / "etc/nvpmodel.conf").read_text().splitlines()
    board.write("etc/nvpmodel.conf", "\n".join(f"{line}\nGPU MAX_FREQ {624750000 + n}"
                                               for n, line in enumerate(conf)))  # fmt: skip
    assert read_power_mode(Board(str(board.root)))["gpu_mhz"] == pytest.approx(624.75)


def test_rails_with_the_same_label_do_not_overwrite_each_other(made_board):
    board = made_board("agx-orin", hwmon2={"NC": [0, 0], "NC ": [1000, 5]})
    source = ina_hwmon(Board(str(board.root)))
    assert [rail for rail in source.rails if rail.startswith("NC")] == ["NC", "NC#2"]


def test_jetpack_4_power_files_are_read_in_milliwatts(made_board):
    source = ina_iio(Board(str(made_board("jetson-agx-xavier").root)))
    assert sum(source.read()) == 7632


def test_sensor_that_disappears_reads_none(made_board):
    board = made_board("orin-nano")
    source = ina_hwmon(Board(str(board.root)))
    (board.root / "sys/class/hwmon/hwmon4/curr1_input").unlink()
    assert source.read()[0] is None and source.read()[1] == 450.0


def test_rapl_counters_come_with_the_value_they_wrap_at(made_board):
    board = made_board("raspberry-pi-4")
    for zone, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core")):
        board.write(f"sys/class/powercap/{zone}/name", name + "\n")
        board.write(f"sys/class/powercap/{zone}/energy_uj", "123456\n")
        board.write(f"sys/class/powercap/{zone}/max_energy_range_uj", "262143328850\n")
    source = rapl(Board(str(board.root)))
    assert source.rails == ["package-0", "core"] and source.unit == "uj"
    assert source.read() == [123456, 123456] and source.wraps_at == [262143328850] * 2


@pytest.mark.parametrize("both", [True, False])
def test_rapl_package_that_linux_shows_twice_is_one_rail(made_board, both):
    board = made_board("raspberry-pi-4")
    for zone, name in (("intel-rapl:0", "package-0"), ("intel-rapl-mmio:0", "package-0")):
        board.write(f"sys/class/powercap/{zone}/name", name + "\n")
        if both or "mmio" in zone:
            board.write(f"sys/class/powercap/{zone}/energy_uj", "5\n")
    assert rapl(Board(str(board.root))).rails == ["package-0"]


@pytest.mark.parametrize(
    "form", ["{}_A current(7)=2.0A\n{}_V volt(9)=1.5V", "{}_A=2.0A\n{}_V=1.5V"]
)
def test_raspberry_pmic_is_read_in_both_forms_of_its_firmware(made_board, form):
    adc = form.format("VDD_CORE", "VDD_CORE") + "\nEXT5V_V volt(24)=5.1V\njunk\n"
    board = made_board("raspberry-pi-5", vcgencmd={"throttled": "0x0", "adc": adc})
    source = raspberry_pmic(Board(str(board.root)))
    assert source.rails == ["VDD_CORE"] and source.read() == [3000.0]


def test_missing_nvml_has_no_rails():
    assert not any(source.rails for source in nvml("libnosuch.so"))


def test_power_mode_is_set_by_name_or_id_and_a_wrong_name_lists_the_modes(made_board):
    board = Board(str(made_board("orin-nano").root))
    assert set_power_mode(board, "MAXN_SUPER")["id"] == 2
    assert set_power_mode(board, "1")["name"] == "25W"
    with pytest.raises(Failure, match=r"no power mode 'MAXN'; this board has .*MAXN_SUPER"):
        set_power_mode(board, "MAXN")


def test_mode_that_needs_a_reboot_is_an_error_and_not_a_silent_old_mode(made_board):
    board = made_board("orin-nano")
    board.tool("nvpmodel", 'echo "NV Power Mode: 15W"; echo 0; echo "reboot required" >&2')
    with pytest.raises(Failure, match="did not change to power mode 2.*reboot required"):
        set_power_mode(Board(str(board.root)), "2")


def test_power_mode_is_read_from_its_status_file_where_nvpmodel_says_nothing(made_board):
    board = made_board("orin-nano")
    board.tool("nvpmodel", "exit 1")
    board.write("var/lib/nvpmodel/status", "pmode:0002\n")
    mode = read_power_mode(Board(str(board.root)))
    assert (mode["id"], mode["name"]) == (2, "MAXN_SUPER")


@pytest.mark.parametrize(
    ("l4t", "jetpack", "by"),
    [
        ("36.4.3", "6.2", "L4T 36.4.3"),
        ("32.5.0", "4.5", "L4T 32.5"),
        ("39.2.0", "7.2", "L4T 39.2.0"),
        ("36.4.7", "6.2.1", "nearest L4T, 36.4.4"),
        ("36.5.1", "6.2.2", "nearest L4T, 36.5.0"),
        ("38.2.1", "7.0", "nearest L4T, 38.2"),
        ("39.2.2", "7.2", "nearest L4T, 39.2.0"),
        ("35.6.3", "5.1.5", "nearest L4T, 35.6.2"),
        ("36.1", None, None),  # older than all of its line: another line's is no neighbour
        ("99.1", None, None),
    ],
)
def test_jetpack_is_that_of_the_l4t_or_of_the_nearest_and_says_which(made_board, l4t, jetpack, by):
    major, _, rest = l4t.partition(".")
    board = made_board("orin-nano", release=f"# R{major} (release), REVISION: {rest}, GCID: 1")
    found = read_l4t(Board(str(board.root)))
    assert (found["l4t"], found["jetpack"], found["jetpack_by"]) == (l4t, jetpack, by)
    assert jetpack_of(l4t) == jetpack


@pytest.mark.parametrize(
    ("line", "jetpack", "by"),
    [
        ("nvidia-jetpack\t6.2.1+b38", "6.2.1", "package nvidia-jetpack"),  # an older dpkg
        ("nvidia-jetpack\t6.2.1+b38\tii ", "6.2.1", "package nvidia-jetpack"),
        ("nvidia-jetpack\t5.1-b147\thi ", "5.1", "package nvidia-jetpack"),  # held by apt
        ("nvidia-jetpack\t5.1-b147\trc ", "6.2", "L4T 36.4.3"),  # removed, settings left
        ("nvidia-jetpack\t\tii ", "6.2", "L4T 36.4.3"),
    ],
)
def test_jetpack_is_asked_of_the_package_manager_first(made_board, line, jetpack, by):
    board = made_board("orin-nano")
    board.tool("dpkg-query", f"echo '{line}'")
    data = probe(Board(str(board.root)))
    assert (data["jetson"]["jetpack"], data["jetson"]["jetpack_by"]) == (jetpack, by)
    assert ("nvidia-jetpack" in data["packages"]) == (by == "package nvidia-jetpack")


def test_release_of_a_jetson_without_its_file_is_that_of_its_package(made_board):
    board = made_board("orin-nano")
    (board.root / "etc/nv_tegra_release").unlink()
    board.tool("dpkg-query", "printf 'nvidia-l4t-core\t36.4.7-20250918154033\tii \n'")
    found = read_l4t(Board(str(board.root)))
    assert (found["l4t"], found["jetpack"]) == ("36.4.7", "6.2.1")


def test_clocks_of_a_mode_are_those_of_its_block_in_nvpmodels_table(made_board):
    board = made_board("orin-nano")
    board.write("nvpmodel_state", "1\n")
    board.write("etc/nvpmodel.conf", NVPMODEL)
    mode = read_power_mode(Board(str(board.root)))
    assert (mode["id"], mode["gpu_mhz"], mode["emc_mhz"]) == (1, 624.75, 2133.0)
    board.write("nvpmodel_state", "2\n")
    mode = read_power_mode(Board(str(board.root)))
    assert (mode["id"], mode["gpu_mhz"], mode["emc_mhz"]) == (2, None, None)
    board.write("sys/class/devfreq/17000000.gpu/available_frequencies", "306000000 1020000000\n")
    assert read_power_mode(Board(str(board.root)))["gpu_mhz"] == 1020.0


def test_what_hangs_on_the_buses_is_listed(made_board):
    board = made_board("raspberry-pi-5")
    for path, text in {
        "pci/devices/0001:01:00.0/vendor": "0x1e60",
        "pci/devices/0001:01:00.0/device": "0x2864",
        "usb/devices/2-1/idVendor": "18d1",
        "usb/devices/2-1/idProduct": "9302",
    }.items():
        board.write(f"sys/bus/{path}", text + "\n")
    data = probe(Board(str(board.root)))
    assert data["board"]["attached"] == ["pci:1e60:2864", "usb:18d1:9302"]
    device = recognise(data)
    assert device.description.endswith("with Hailo with Coral Edge TPU")
    assert [text.partition(":")[0] for text in device.not_measured] == ["Hailo", "Coral Edge TPU"]


def test_tool_that_hangs_is_ended_in_time(made_board):
    board = made_board("orin-nano")
    board.tool("nvpmodel", "sleep 60")
    outcome = Board(str(board.root)).run(["nvpmodel", "-q"], timeout_s=0.3)
    assert outcome.status is None and "no end within" in outcome.errors


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it lives on
def test_tool_of_roots_that_hangs_and_cannot_be_ended_is_given_up(made_board, monkeypatch):
    left = []

    def refuse(group, number):  # what Linux does where sudo has made itself root
        left.append(group)
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("remote_bench.agent.board.os.killpg", refuse)
    board = made_board("orin-nano")
    board.tool("sudo", "echo asking; exec sleep 60")
    begin = time.monotonic()
    outcome = Board(str(board.root)).run(["sudo", "-n", "true"], timeout_s=0.5)
    monkeypatch.undo()
    os.killpg(left[0], signal.SIGKILL)
    assert time.monotonic() - begin < 20
    assert (outcome.status, outcome.output) == (None, "asking\n")
    assert "no end within" in outcome.errors


@pytest.mark.slow
@pytest.mark.parametrize(
    "sudo",
    [
        "echo 'sudo: a password is required' >&2; exit 1",
        "echo Password:; read answer",  # nobody answers
        "sleep 600",
    ],
)
def test_sudo_that_asks_or_hangs_is_given_up_and_the_board_read_without_root(
    made_board, monkeypatch, sudo
):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    board = made_board("orin-nano")
    board.tool("sudo", sudo)
    begin = time.monotonic()
    data = probe(Board(str(board.root)))
    assert time.monotonic() - begin < 20
    assert not data["sudo"]
    checks = {row["what"]: row for row in data["readable"]}
    assert not checks["change of the power mode"]["ok"]
    assert "connect as root" in checks["change of the power mode"]["fix"]
    assert checks["power rails"]["ok"]


# Old interpreters, where pyenv has some: the board's is 3.6 (JetPack 4) or newer.
OLD_PYTHONS = sorted((Path.home() / ".pyenv/versions").glob("3.[678].*/bin/python3"))


@pytest.mark.parametrize("python", [Path(sys.executable), *OLD_PYTHONS], ids=str)
def test_probe_runs_as_a_plain_folder_on_this_python_and_prints_one_framed_line(tmp_path, python):
    (tmp_path / "remote_bench").symlink_to(AGENT.parent)
    result = subprocess.run(
        [python, "-B", "-u", "-m", "remote_bench.agent", "probe"],
        input=b'{"token": "t0k"}\n',
        capture_output=True,
        cwd=tmp_path,
        check=True,
    )
    [line] = result.stdout.splitlines()
    assert line.startswith(b"@t0k {") and result.stderr == b""
    assert json.loads(line[5:])["event"] == "probe"


@pytest.mark.parametrize("line", [b"\n", b"[]\n", b'{"token": "x"}\n', b""])
def test_request_that_cannot_be_read_is_refused_in_one_line(line):
    result = subprocess.run(
        [sys.executable, "-m", "remote_bench.agent", "run"], input=line, capture_output=True
    )
    assert result.returncode == 2 and result.stdout == b""
    assert result.stderr.startswith(b"agent: ") and result.stderr.count(b"\n") == 1


def test_what_a_laptop_prefers_power_for_is_a_setting(made_board):
    board = made_board("raspberry-pi-4")
    wanted = {
        "/sys/devices/system/cpu/cpufreq/policy0/energy_performance_preference": "power",
        "/sys/firmware/acpi/platform_profile": "low-power",
    }
    for path, text in wanted.items():
        board.write(path.lstrip("/"), text + "\n")
    assert wanted.items() <= read_settings(Board(str(board.root))).items()
