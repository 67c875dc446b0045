import json
import subprocess
import sys
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from remote_bench.tegrastats import parse_line

ORIN = (
    "03-17-2024 18:54:10 RAM 10239/62841MB (lfb 442x4MB) SWAP 1/31421MB (cached 0MB) "
    "CPU [0%@1728,off] GR3D_FREQ 12%@[305,306] NVENC off VIC 36%@115 APE 174 MTS fg 1% bg 8% "
    "cpu@37.5C tj@37.5C/40C PMIC@100C CV0@-256C VDD_GPU_SOC 1592mW/1592mW "
    "VDD_CPU_CV -398mW/-398mW VIN_SYS_5V0 2624mW/2624mW/2700mW NC 0mW/0mW NC 0mW/0mW"
)
EXPECTED = Path(__file__).with_name("tegrastats_expected.jsonl")


def engine(unit):
    return unit and [unit.load_percent, list(unit.mhz)]


def memory_mb(memory):
    return memory and [memory.used_kb // 1024, memory.total_kb // 1024, memory.cached_kb // 1024]


def test_every_captured_line_gives_the_values_that_stand_in_it(tegrastats_lines):
    expected = [json.loads(text) for text in EXPECTED.read_text().splitlines()]
    assert len(tegrastats_lines) == len(expected)
    for text, want in zip(tegrastats_lines, expected, strict=True):
        line = parse_line(text)
        assert line.unknown == [], text
        assert line.timestamp == want["timestamp"]
        assert [line.ram.used_kb // 1024, line.ram.total_kb // 1024] == want["ram_mb"]
        assert [line.ram.largest_free_blocks, line.ram.largest_free_block_kb] == want["lfb"]
        assert memory_mb(line.swap) == want["swap_mb"]
        assert [core and [core.load_percent, core.mhz] for core in line.cpu] == want["cpu"]
        assert engine(line.gpu) == want["gpu"]
        assert engine(line.emc) == want["emc"]
        assert {name: zone.celsius for name, zone in line.zones.items()} == want["zones"]
        maxima = {n: z.max_celsius for n, z in line.zones.items() if z.max_celsius is not None}
        assert maxima == want["max_zones"]
        assert {name: rail.mw for name, rail in line.rails.items()} == want["rails_mw"]
        others = set(line.engines) - {"GR3D_FREQ", "GR3D", "EMC_FREQ", "EMC"}
        assert sorted(others) == want["others"]


def test_fields_of_a_line_are_typed_and_nulls_have_reasons():
    line = parse_line(ORIN)
    assert line.cpu[1] is None and line.cpu[0].mhz == 1728
    assert line.gpu.mhz == (305, 306) and line.gpu.load_percent == 12
    assert line.engines["NVENC"].off and line.engines["VIC"].load_percent == 36
    assert line.engines["APE"].mhz == (174,)
    assert line.mts_percent == {"fg": 1, "bg": 8}
    assert line.rails["VDD_CPU_CV"].mw == -398  # one sensor step, and true
    assert line.rails["VIN_SYS_5V0"].printed_max_mw == 2700
    assert line.zones["tj"].max_celsius == 40
    assert line.zones["PMIC"].celsius is None and line.zones["CV0"].celsius is None
    assert "constant" in line.nulls["zones.PMIC"] and "rail-gated" in line.nulls["zones.CV0"]
    assert [rail.name for rail in line.repeated] == ["NC"]


def test_rails_that_share_names_with_zones_and_cpu_stay_apart():
    line = parse_line("CPU [5%@1190] GPU@32C CPU@33.5C GPU 465/465 CPU 310/310")
    assert line.rail_mw("GPU") == 465 and line.rail_mw("CPU") == 310
    assert line.zones["GPU"].celsius == 32 and line.cpu[0].load_percent == 5


def test_iram_without_a_space_before_its_block_is_read():
    line = parse_line("IRAM 0/252kB(lfb 252kB) SWAP 5/1982MB (cached 1MB)")
    assert line.iram.total_kb == 252 and line.iram.largest_free_block_kb == 252
    assert line.swap.cached_kb == 1024


def test_format_never_seen_before_gives_nulls_with_reasons_and_keeps_every_token():
    text = 'tegrastats/9 {"ram":[1,2]} GPU=3W VDD_NEW_RAIL 12.5W <5%>'
    line = parse_line(text)
    assert line.unknown == text.split()
    assert (line.ram, line.cpu, line.gpu, line.rails) == (None, None, None, {})
    assert {"ram", "cpu", "gpu", "emc", "rails"} <= set(line.nulls)


def test_new_rail_and_new_engine_of_a_known_shape_are_read():
    line = parse_line("VDD_FUTURE 12mW/13mW/14mW XPU 7%@900 XPU2_FREQ @[1,2]")
    assert line.rail_mw("VDD_FUTURE") == 12
    assert line.engines["XPU"].mhz == (900,) and line.engines["XPU2_FREQ"].mhz == (1, 2)


def test_rail_that_is_printed_twice_with_two_values_has_no_value():
    assert parse_line("VDD_IN 100/100 VDD_IN 100/100").rail_mw("VDD_IN") == 100
    assert parse_line("VDD_IN 100/100 VDD_IN 900/900").rail_mw("VDD_IN") is None


def test_line_cut_at_any_byte_never_gives_a_wrong_rail_or_temperature(tegrastats_lines):
    for text in [*tegrastats_lines, ORIN]:
        whole = parse_line(text)
        for end in range(len(text)):
            part = parse_line(text[:end])
            assert all(rail.mw == whole.rails[name].mw for name, rail in part.rails.items())
            assert all(z.celsius == whole.zones[name].celsius for name, z in part.zones.items())
            assert part.ram in (None, whole.ram) or part.ram.used_kb == whole.ram.used_kb
            assert part.cpu in (None, whole.cpu) or part.cpu[0].load_percent >= 0


@given(st.data())
def test_dropped_doubled_and_shuffled_tokens_raise_nothing_and_double_no_power(data):
    tokens = ORIN.split()
    indices = data.draw(st.lists(st.integers(0, len(tokens) - 1), max_size=2 * len(tokens)))
    line = parse_line(" ".join(tokens[i] for i in indices))
    readings = {1592, -398, 2624, 0}
    assert all(rail.mw in readings for rail in line.rails.values())
    json.loads(line.to_json())


@given(st.integers(0, 34))
def test_doubled_token_changes_no_rail(at):
    tokens = ORIN.split()
    line = parse_line(" ".join([*tokens[: at + 1], *tokens[at:]]))
    for name, rail in parse_line(ORIN).rails.items():
        assert line.rail_mw(name) in (rail.mw, None)


@given(st.integers(0, 34), st.text("~!{}<>=", min_size=1))
def test_token_of_no_known_shape_is_kept_wherever_it_stands(at, stranger):
    tokens = ORIN.split()
    assert stranger in parse_line(" ".join([*tokens[:at], stranger, *tokens[at:]])).unknown


@given(st.one_of(st.text(), st.binary()))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_no_text_and_no_bytes_raise(text):
    table = json.loads(parse_line(text).to_json())
    assert set(table) >= {"raw", "rails", "unknown", "nulls", "gpu"}


def test_module_prints_one_object_a_line_in_order_for_known_and_unknown_lines():
    lines = [ORIN.encode(), b"", b"\xff\xfe no line at all", b"# comment", ORIN.encode()]
    result = subprocess.run(
        [sys.executable, "-m", "remote_bench.tegrastats"],
        input=b"\n".join(lines) + b"\n",
        capture_output=True,
        check=True,
    )
    tables = [json.loads(text) for text in result.stdout.splitlines()]
    assert len(tables) == len(lines) and result.stderr == b""
    assert tables[0] == tables[4] and tables[0]["rails"]["VDD_CPU_CV"]["mw"] == -398
    assert [table["unknown"] for table in tables[1:4]] == [
        [],
        ["\ufffd\ufffd", "no", "line", "at", "all"],
        ["#", "comment"],
    ]


def test_module_ends_quietly_when_nobody_reads_on():
    command = f"{sys.executable} -m remote_bench.tegrastats | head -n 1"
    result = subprocess.run(
        command, input=ORIN.encode() * 2000 + b"\n" * 5000, capture_output=True, shell=True
    )
    assert result.stdout.count(b"\n") == 1 and result.stderr == b""
