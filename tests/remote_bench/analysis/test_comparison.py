import importlib.util
import io
import random
from dataclasses import replace
from pathlib import Path

import pytest
from remote_bench.analysis.comparison import compare
from remote_bench.analysis.report import BundleFacts, Reason
from remote_bench.analysis.result import PowerMode
from remote_bench.analysis.stats import t_quantile
from remote_bench.report.figures import render_comparison
from rich.console import Console

RECORDED = Path(__file__).parents[1] / "recorded_blocks.csv"
SCRIPT = Path(__file__).parents[3] / "tools/bench_figures/simulate_compare.py"
_spec = importlib.util.spec_from_file_location("simulate_compare", SCRIPT)
simulate_compare = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(simulate_compare)


@pytest.fixture
def side(report_of, made_result):
    """Reports of runs of three blocks: a frame takes factor x 30 ms, runs differ by run_noise."""

    def make(factor=1.0, runs=1, seed=0, run_noise=0.0, noise=0.2, blocks=3, **context):
        rng, reports = random.Random(f"{seed} {factor}"), []
        for _ in range(runs):
            mean = 30.0 * factor * (1 + rng.gauss(0, run_noise))
            raw = made_result(
                seconds=6.0, latency_ms=lambda t, m=mean: m + rng.gauss(0, noise), blocks=blocks
            )
            raw["info"] = {"target": "jetson-fp16", "precision": "fp16", "backend": "tensorrt",
                           "version": "10.3"}  # fmt: skip
            reports.append(report_of(raw, bundle=BundleFacts(sha256="aa"), **context))
        return reports

    return make


def test_slower_runs_are_slower_by_a_sure_margin(side):
    result = compare(side(runs=4, run_noise=0.005), side(1.1, runs=4, run_noise=0.005))
    rows = {row.metric: row for row in result.differences}
    assert result.answer == "different" and result.differs == {}
    assert result.headline.startswith("B is slower: -8.") and result.basis == "between 4 and 4 runs"
    assert rows["fps"].change == pytest.approx(-0.09, abs=0.02) and rows["fps"].sure
    low, high = rows["p50"].interval
    assert low < 0.1 < high and rows["p50"].sure
    assert rows["j_per_frame"].change == pytest.approx(0.1, abs=0.02)


def test_interval_of_single_runs_has_what_runs_may_differ_by_and_says_so(side):
    result = compare(side(), side(1.03))
    assert result.answer == "cannot_tell"  # each block alone would call 3 % sure
    low, high = result.differences[0].interval
    assert low < -0.03 < 0 < high and "of one run a side" in result.basis
    assert compare(side(), side(1.1)).answer == "different"


def test_runs_of_one_block_tell_nothing(side):
    result = compare(side(blocks=1), side(1.5, blocks=1))
    assert result.answer == "cannot_tell" and "fewer than 3 blocks" in result.headline
    assert not any(row.sure for row in result.differences)


def test_a_run_that_is_listed_twice_is_no_second_one(side):
    a, b = (
        [replace(r, run_id=f"run-{f}-{n}") for n, r in enumerate(side(f, runs=3))] for f in (1, 1.1)
    )
    assert compare(a, b).answer == "different"
    result = compare([*a, a[0]], b)
    assert result.answer == "not_comparable"
    assert result.reasons == (
        f"the run {a[0].run_id} is there 2 times; measure it again for each",
    )  # fmt: skip
    assert compare(a, [*b[1:], a[0]]).answer == "not_comparable"
    turns = [replace(r, run_id="run-x") for r in side(runs=3)]
    assert compare(turns, turns, in_turns=True).answer == "no_difference"


def test_two_runs_a_side_lack_a_third(side):
    result = compare(side(runs=2), side(1.1, runs=3))
    assert result.answer == "cannot_tell"
    assert result.headline == "cannot tell: 2 runs a side; measure a third run a side"
    result = compare(side(runs=2), side(1.1, runs=2), in_turns=True)
    assert result.headline == "cannot tell: 2 runs a side; measure with --repeats 3 or more"


def test_equal_runs_without_noise_are_said_to_be_equal(side):
    result = compare(side(runs=4), side(runs=4, seed=1))
    assert result.answer == "no_difference" and "no difference above 5%" in result.headline


def test_one_group_that_differs_is_what_is_compared(side):
    [b] = side()
    b = replace(b, bundle=BundleFacts(sha256="bb"), engine={**b.engine, "precision": "int8"})
    result = compare(side(), [b])
    assert result.answer != "not_comparable" and list(result.differs) == ["network"]


GOVERNOR = "/sys/devices/system/cpu/cpufreq/policy0/scaling_governor"
CHANGES = {
    "governor": ("power mode and clocks", {"settings": {GOVERNOR: "performance"}}, "performance"),
    "mode": ("power mode and clocks", {"power_mode": PowerMode(2, "MAXN_SUPER")}, "MAXN_SUPER"),
    "CPU": ("board", {"cpu": "N100"}, "N100"),
    "cores": ("power mode and clocks", {"cpu_count": 4}, "6, 4"),
    "memory": ("board", {"memory_mb": 4000.0}, "4000"),
    "package": ("software", {"packages": {"libnvinfer10": "10.7.0"}}, "10.3.0, 10.7.0"),
    "desktop": ("software", {"desktop": ("Xorg", "Xwayland")}, "none, a desktop runs"),
    "numpy": ("software", {"modules": {"numpy": "2.0"}}, "1.26, 2.0"),
}


PROFILE = {"/sys/firmware/acpi/platform_profile": "balanced"}


@pytest.mark.parametrize("change", [{"settings": PROFILE}, {"desktop": ("Xorg",)}])
def test_what_an_older_report_did_not_record_is_unknown_and_no_difference(side, change):
    [older], [newer] = side(), side()
    older = replace(older, device=replace(older.device, desktop=None))
    newer = replace(newer, device=replace(newer.device, desktop=()))
    if "settings" in change:
        change = {"settings": {**newer.device.settings, **change["settings"]}}
    newer = replace(newer, device=replace(newer.device, **change))
    for pair in ([older], [newer]), ([newer], [older]):
        assert compare(*pair).differs == {}


def test_xwayland_alone_is_no_desktop(side):
    [a], [b] = side(), side()
    a = replace(a, device=replace(a.device, desktop=()))
    b = replace(b, device=replace(b.device, desktop=("Xwayland",)))
    assert compare([a], [b]).differs == {}


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_run_depends_on_is_a_group_that_differs(side, name):
    group, change, said = CHANGES[name]
    [a], [b] = side(), side()
    common = {"desktop": (), "settings": {GOVERNOR: "schedutil"}}
    a, b = (replace(r, device=replace(r.device, **common)) for r in (a, b))
    b = replace(b, device=replace(b.device, **change))
    [(found, texts)] = compare([a], [b]).differs.items()
    assert found == group and said in "; ".join(texts)


@pytest.mark.parametrize(
    ("group", "flags"),
    [
        ("measurement", {"seconds": 9}),
        ("measurement", {"sampler_hz": 5}),
        ("frames", {"fps": 30}),
        ("frames", {"frames_sha256": "ab"}),
        ("software", {"arguments": ["--use_gpu=true"]}),
    ],
)
def test_how_it_was_measured_is_a_group_too(side, group, flags):
    [b] = side()
    b = replace(b, flags={**b.flags, **flags})
    assert list(compare(side(), [b]).differs) == [group]


def test_a_bundle_that_a_run_was_recorded_in_holds_the_same_network(side):
    [a], [b] = side(), side()
    a = replace(a, bundle=BundleFacts(sha256="aa", artifact_sha256="11"))
    b = replace(b, bundle=BundleFacts(sha256="bb", artifact_sha256="11"))
    assert compare([a], [b]).differs == {}
    b = replace(b, bundle=BundleFacts(sha256="aa", artifact_sha256="22"))
    assert list(compare([a], [b]).differs) == ["network"]
    b = replace(b, bundle=BundleFacts(sha256="bb"))  # of a report that says nothing of it
    assert list(compare([a], [b]).differs) == ["network"]


def test_threads_are_a_group_and_memory_that_moves_with_the_kernel_is_none(side):
    [b] = side()
    b = replace(b, device=replace(b.device, memory_mb=b.device.memory_mb * 0.99))
    assert compare(side(), [b]).differs == {}
    assert list(compare(side(), [replace(b, engine={**b.engine, "threads": 9})]).differs) == [
        "threads"
    ]


def test_the_same_change_of_many_cores_is_said_once(side):
    sides = [
        [replace(side()[0], device=replace(side()[0].device, settings=settings))]
        for settings in (
            {f"/sys/policy{n}/scaling_governor": governor for n in range(8)}
            for governor in ("schedutil", "performance")
        )
    ]
    [text] = compare(*sides).differs["power mode and clocks"]
    assert text == "device.settings scaling_governor: schedutil, performance (8 times)"


def test_two_groups_that_differ_are_not_comparable_and_each_is_named(side):
    [b] = side()
    device = replace(b.device, power_mode=PowerMode(2, "MAXN_SUPER"))
    b = replace(b, engine={**b.engine, "version": "11.0"}, device=device)
    result = compare(side(), [b])
    assert result.answer == "not_comparable" and result.differences == ()
    text = "; ".join(result.reasons)
    assert "10.3, 11.0" in text and "15W, MAXN_SUPER" in text


def test_two_boards_are_compared_in_spite_of_their_own_power_modes(side):
    [b] = side()
    other = replace(b.device, name="orin-nx", model="NX", power_mode=PowerMode(0, "MAXN"))
    assert compare(side(), [replace(b, device=other)]).answer != "not_comparable"


def test_invalid_report_is_not_compared(side):
    why = Reason("rebooted", "invalid", "the board rebooted")
    result = compare(side(), [replace(side()[0], verdict="invalid", reasons=(why,))])
    assert result.reasons == ("B is invalid: the board rebooted",)


@pytest.mark.parametrize(("share", "answer"), [(0.1, "no_difference"), (0.101, "not_comparable")])
@pytest.mark.parametrize("key", ["cpu", "idle_gpu", "gpu"])
def test_foreign_load_on_one_side_is_not_comparable(side, share, answer, key):
    disturbed = side(runs=4)
    load = replace(disturbed[2].conditions.foreign_load, **{key: share})
    conditions = replace(disturbed[2].conditions, foreign_load=load)
    disturbed[2] = replace(disturbed[2], conditions=conditions)
    result = compare(side(runs=4), disturbed)
    assert result.answer == answer
    assert answer == "no_difference" or result.reasons[0].startswith("B3 was disturbed: others")


@pytest.mark.parametrize("mean_w", [None, -0.02])  # no sensor, or one that is off at rest
def test_power_of_a_side_without_it_is_left_out(side, mean_w):
    [b] = side()
    b = replace(b, blocks=tuple(replace(block, mean_w=mean_w) for block in b.blocks))
    assert {row.metric for row in compare(side(), [b]).differences} == {"fps", "p50", "p90"}


def with_power(report, scope, *rails):
    return replace(report, power=replace(report.power, scope=scope, rails=rails))


def test_power_of_different_rails_of_a_board_is_not_compared_and_the_answer_says_so(side):
    [a], [b] = side(), side(1.1)
    a = with_power(a, "soc + gpu", "nvml-0", "package-0")
    result = compare([a], [with_power(b, "gpu", "nvml-0")])
    assert result.answer == "different"
    assert not {"mean_w", "j_per_frame"} & {row.metric for row in result.differences}
    [reason] = result.reasons
    assert reason.endswith(": A is nvml-0+package-0 (soc + gpu), B is nvml-0 (gpu)")
    assert compare([a], [with_power(b, "soc + gpu", "nvml-0", "nvml-1", "package-0")]).reasons


def test_power_of_two_boards_is_compared_where_it_supplies_the_same(side):
    [a], [b] = side(), side(1.1)
    other = replace(b, device=replace(b.device, name="agx-orin", model="AGX"))
    b = with_power(other, "module", "VDD_CPU_CV", "VDD_GPU_SOC", "VIN_SYS_5V0")
    for report, known in ((b, True), (replace(b, power=replace(b.power, scope="system")), False)):
        result = compare([a], [report])
        assert ("mean_w" in {row.metric for row in result.differences}) == known
        assert bool(result.reasons) != known


def test_comparison_is_shown_with_all_notes_before_its_answer(side):
    [b] = side(1.1)
    note = Reason("clocks_fell", "note", "clocks fell by 9%")
    b = replace(b, verdict="valid_with_notes", reasons=(note,))
    console = Console(file=io.StringIO(), width=120)
    console.print(render_comparison(compare(side(), [b])))
    hostile = BundleFacts(sha256="\x1b[31m[red]")
    b = replace(b, engine={**b.engine, "version": "11.0"}, bundle=hostile)
    console.print(render_comparison(compare(side(), [b])))
    text = console.file.getvalue()
    assert text.index("B: clocks fell by 9%") < text.index("B is slower") < text.index("intervals:")
    assert "A: valid\n" in text and "what differs: nothing" in text
    assert "not comparable:" in text and "\x1b" not in text and "[red]" in text


@pytest.mark.parametrize(
    ("probability", "degrees", "table"),  # of any textbook
    [(0.975, 1, 12.706), (0.975, 2, 4.303), (0.975, 3, 3.182), (0.98, 5, 2.757),
     (0.975, 10, 2.228), (0.995, 4, 4.604), (0.975, 1000, 1.962), (0.975, 4.9, 2.776)],
)  # fmt: skip
def test_quantiles_of_students_t_are_those_of_the_tables(probability, degrees, table):
    assert t_quantile(probability, degrees) == pytest.approx(table, rel=0.01)


DESIGNS = ["6 runs a side in turns", "4 runs a side", "1 run a side"]


@pytest.mark.parametrize("design", DESIGNS)
def test_equal_sides_are_seldom_called_different_and_slower_ones_mostly_found(design):
    # The recording is of a busy machine, whose runs compare() refuses: the interval alone holds.
    recorded = simulate_compare.read_runs(RECORDED)
    quiet = simulate_compare.made(block=0.02, run=0.01)
    for noise in (quiet, lambda rng, count: simulate_compare.neighbours(recorded, rng, count)):
        assert simulate_compare.called_different(noise, design, 1.0) <= 0.05
    assert simulate_compare.called_different(quiet, design, 1 / 1.1) >= 0.8
