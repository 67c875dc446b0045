import json
from importlib import resources

import pytest
from fastseg_runtime.arrays.strict_tables import TableError
from remote_bench.analysis.report import RequirementsCheck, json_schema, read_report
from remote_bench.analysis.requirements import parse
from remote_bench.host.errors import BenchError
from remote_bench.report.outcome import document

PUBLISHED = json.loads(resources.files("remote_bench").joinpath("report.schema.json").read_text())
# What readers may rely on; a new name joins here, none of these goes.
NAMES = [
    "schema",
    "verdict",
    "reasons",
    "run_id",
    "host",
    "tool",
    "created",
    "bundle",
    "error",
    "flags",
    "log",
    "fps",
    "fps_ci95",
    "latency_ms",
    "paced",
    "steady",
    "accuracy",
    "load",
    "engine",
    "memory",
    "power",
    "power_reason",
    "device",
    "conditions",
    "sampler",
    "changed",
    "series",
    "bound_ms",
    "fps_ci95_basis",
    "blocks",
    "not_watched",
]


def fits(value, schema) -> bool:
    """Return whether a value is what a JSON Schema describes; an independent small reading."""
    if "$ref" in schema:
        return fits(value, PUBLISHED["$defs"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return any(fits(value, one) for one in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    named = schema.get("type", ["object", "array", "string", "boolean", "null", "number"])
    for kind in [named] if isinstance(named, str) else named:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if (kind == "number" and number) or (kind == "integer" and number and value == int(value)):
            return True
        if kind in kinds and isinstance(value, kinds[kind]):
            return fits_inside(value, schema)
    return False


def fits_inside(value, schema) -> bool:
    if isinstance(value, dict):
        rest, own = schema.get("additionalProperties", {}), schema.get("properties", {})
        good = all(fits(item, own.get(key, rest)) for key, item in value.items())
        return good and set(schema.get("required", ())) <= set(value)
    if isinstance(value, list):
        first, rest = schema.get("prefixItems", []), schema.get("items", {})
        if first:
            good = len(value) == schema["minItems"] and rest is False
            return good and all(map(fits, value, first))
        return all(fits(item, rest) for item in value)
    return True


def test_published_schema_is_that_of_the_types():
    assert json_schema() == PUBLISHED, (
        "run: python -m remote_bench.analysis.report > tools/remote_bench/report.schema.json"
    )


def test_report_of_a_run_and_of_a_failed_one_fit_the_published_schema(report_of, made_result):
    whole = report_of(made_result(info={"target": "t"}, load={
        "built": False, "first_ms": 3.0, "cold_ms": 2.0, "warm_ms": 1.0}))  # fmt: skip
    for report in (whole, report_of(made_result(slices=[], frames={}, samples={
        "power": [], "environment": [], "tegrastats": {}}))):  # fmt: skip
        table = json.loads(json.dumps(report.to_table()))
        assert fits(table, PUBLISHED)
        assert set(NAMES) == set(table)
    assert not fits({**table, "fps": "fast"}, PUBLISHED)
    assert not fits({key: table[key] for key in NAMES[1:]}, PUBLISHED)
    assert not fits({**table, "power": {"source": []}}, PUBLISHED)


def test_percentiles_have_the_names_that_people_give_them(report_of, made_result):
    latency = report_of(made_result()).to_table()["latency_ms"]
    assert list(latency)[:5] == ["p50", "p90", "p95", "p99", "p99.9"]
    assert "p99.9" in PUBLISHED["$defs"]["Latency"]["required"]


def test_what_was_not_asked_for_is_not_in_the_json(report_of, made_result):
    report = report_of(made_result(), address="10.0.0.7")
    table = report.to_table()
    assert table["address"] == "10.0.0.7"
    assert not {"requirements", "deployed", "board"} & set(table)
    assert isinstance(parse("fps>=30").check(report), RequirementsCheck)


def test_printed_report_reads_back_as_it_was_and_so_does_that_of_a_newer_version(
    report_of, made_result
):
    report = report_of(made_result())
    table = report.to_table()
    assert read_report(json.dumps(table)) == report
    table["new"] = table["memory"]["new"] = 1
    assert read_report(json.dumps(table)) == report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "good"}, r"^report: verdict: expected one of 'valid', .*got 'good'"),
        ({"schema": 2}, r"^report: schema: expected one of 1, got 2"),
        ({"fps_ci95": [1.0]}, r"^report: fps_ci95: expected 2 values"),
    ],
)
def test_no_report_is_refused_and_says_where(report_of, made_result, change, message):
    table = report_of(made_result()).to_table() | change
    with pytest.raises(TableError, match=message):
        read_report(json.dumps(table))


def test_document_of_several_boards_is_no_report_and_says_so(report_of, made_result):
    outcomes = {host: report_of(made_result(), host=host) for host in ("orin", "pi")}
    message = r"reports of 2 boards \(\['orin', 'pi'\]\), expected one report; save each to a file"
    with pytest.raises(TableError, match=message):
        read_report(json.dumps(document(outcomes)))
    failed = document({"orin": outcomes["orin"], "pi": BenchError("gone")})
    with pytest.raises(TableError, match="reports of 2 boards"):
        read_report(json.dumps(failed))
    for strange in ([], [1, None], [{"host": 5}]):
        with pytest.raises(TableError, match="the reports of"):
            read_report(json.dumps({"schema": 1, "reports": strange}))
