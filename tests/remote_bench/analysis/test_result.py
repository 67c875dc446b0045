import copy
import json

import pytest
from fastseg_runtime.arrays.strict_tables import TableError
from remote_bench.analysis import result
from remote_bench.analysis.result import failed_result, parse_json, read_result


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "no JSON"),
        ('{"schema": NaN}', "NaN is no JSON number"),
        ("[" * 100000, "no JSON"),
        ("[]", "expected a table"),
        ('{"schema": 2}', "schema: expected one of 1, got 2"),
        ('{"schema": 1}', "missing keys"),
    ],
)
def test_damaged_result_is_refused_and_says_where(text, message):
    with pytest.raises(TableError, match=message):
        read_result(text)


@pytest.mark.slow
def test_every_field_of_a_result_may_be_hostile_without_a_crash(report_of, made_result):
    """Replace each value in turn: the schema refuses it, or the analysis copes with it."""
    raw = made_result(seconds=2, idle_s=1)
    refused = 0
    for path in _paths(raw):
        for hostile in (None, "x", -1, 1e308, [], {}):
            changed = copy.deepcopy(raw)
            place = changed
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = hostile
            try:
                table = report_of(changed).to_table()
            except TableError:
                refused += 1
                continue
            json.dumps(table, allow_nan=False)
    assert refused > 100


def _paths(value, path=()):
    # One path a kind of place: the first entry stands for all entries of a list.
    items = value.items() if isinstance(value, dict) else enumerate(value[:1])
    for key, item in list(items):
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from _paths(item, (*path, key))


def test_keys_that_nobody_looks_at_are_left_out_and_no_others_may_lack(made_result):
    raw = made_result()
    whole = read_result(json.dumps(raw))
    raw["probe"]["hostname"] = raw["slices"][0]["new"] = "x"
    assert read_result(json.dumps(raw)) == whole
    del raw["probe"]["system"]["kernel"]
    with pytest.raises(TableError, match=r"^result: probe\.system: missing keys \['kernel'\]$"):
        read_result(json.dumps(raw))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": {"flat_out": {"t": [1.0]}}}, r"frames\.flat_out: missing keys"),
        ({"slices": []}, None),
        ({"frames": {}}, r"^result: slices: \['flat_out'\] have no frames$"),
        ({"request": {"sampler_hz": "x"}}, r"request: sampler_hz: expected a number, got 'x'"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(made_result, change, message):
    text = json.dumps({**made_result(), **change})
    if message is None:
        read_result(text)
        return
    with pytest.raises(TableError, match=message):
        read_result(text)


def test_columns_rows_and_slices_that_cannot_be_are_refused(made_result):
    raw = made_result(seconds=1)
    columns, part = raw["frames"]["flat_out"], raw["slices"][0]
    power = {"source": "rapl", "unit": "uj", "rails": ["a"], "wraps_at": [None], "t": [1.0],
             "values": [[1.0]]}  # fmt: skip
    raw["samples"]["power"] = [power]
    read_result(json.dumps(raw))
    for place, key, value, message in (
        (columns, "t", columns["t"][1:], "its columns are empty or differ in length"),
        (power, "values", [[1.0, 2.0]], "'rapl' has ragged rows"),
        (power, "t", [], "'rapl' has ragged rows"),
        (part, "end", part["begin"], "'flat_out' has no duration"),
        (part, "frames", -1, "fewer than no frames"),
    ):
        kept, place[key] = place[key], value
        with pytest.raises(TableError, match=message):
            read_result(json.dumps(raw))
        place[key] = kept


@pytest.mark.parametrize(
    ("within", "beyond", "message"),
    [
        ("1e18", "1.0001e18", "a number beyond 1e\\+18"),
        ("-1000000000000000000", "-1000000000000000001", "a number beyond"),
        ("0.5", "1e999", "inf is a number beyond"),
        ('"%s"' % ("x" * 65536), '"%s"' % ("x" * 65537), "a text of 65537 characters"),
        ('[["%s"]]' % ("x" * 65536), '[1.0, ["%s"]]' % ("x" * 65537), "a text of 65537"),
        ('{"%s": 1}' % ("k" * 65536), '{"%s": 1}' % ("k" * 65537), "a text of 65537"),
    ],
    ids=["float", "int", "infinity", "text", "text in lists", "key"],
)
def test_everything_in_a_document_has_a_limit(within, beyond, message):
    parse_json(f'{{"a": {within}}}', "result")
    with pytest.raises(TableError, match=f"^result: no JSON: .*{message}"):
        parse_json(f'{{"a": {beyond}}}', "result")


def test_document_has_a_limit(monkeypatch):
    monkeypatch.setattr(result, "MOST_BYTES", 10)
    parse_json(b"[123456.0]", "result")
    with pytest.raises(TableError, match="11 bytes, expected at most 10"):
        parse_json(b"[1234567.0]", "result")


def test_lost_result_has_what_was_asked_and_why_it_is_lost(made_result):
    lost = failed_result({"seconds": 10}, made_result()["probe"], "rebooted", "it did")
    assert lost.request == {"sampler_hz": 0, "seconds": 10}
    assert (lost.error.kind, lost.error.message) == ("rebooted", "it did")
    assert lost.spans() == {} and lost.blocks() == []
