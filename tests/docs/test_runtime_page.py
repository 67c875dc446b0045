"""docs/runtime.md says what the class and the command have."""

import inspect
import re
from pathlib import Path
from typing import Any

from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays.stats import frames_needed
from fastseg_runtime.engines.engine import ENGINES
from fastseg_runtime.engines.tensorrt.cache import DEFAULT_LIMIT_MB
from fastseg_runtime.frames.stream import StreamFrame, stream

from tests.doubles.tiny_bundle import full_plan, noise

PAGE = (Path(__file__).parents[2] / "docs/runtime.md").read_text("utf-8")


def test_the_table_of_arguments_is_the_constructors() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE, re.MULTILINE))
    parameters = dict(inspect.signature(RealtimeSegmentation).parameters)
    assert list(rows) == list(parameters)
    for name in ("backend", "device", "color", "build"):
        assert rows[name] == f'`"{parameters[name].default}"`'
    assert (rows["selftest"], rows["engines"]) == ("`True`", "1")


def test_every_backend_and_method_on_the_page_exists() -> None:
    (row,) = re.findall(r"^\| `backend` \|.*$", PAGE, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", row)) - {"backend"} <= {*ENGINES}
    for name in re.findall(r"`seg\.(\w+)[(`]", PAGE):
        assert hasattr(RealtimeSegmentation, name) or name == "info"
    for name in re.findall(r"\*\*`(\w+)\(", PAGE):
        assert hasattr(RealtimeSegmentation, name)


def test_the_stream_takes_and_gives_what_the_page_says() -> None:
    options = inspect.signature(stream).parameters
    said = re.search(r"`stream\((.*?)\)`", PAGE)
    assert said and said.group(1) == ", ".join(
        name if option.default is option.empty else f"{name}={option.default}"
        for name, option in list(options.items())[1:]
    )
    assert all(f"`{name}`" in PAGE for name in StreamFrame.__dataclass_fields__)


def test_numbers_are_those_of_the_code() -> None:
    p50, p90, p99 = map(frames_needed, (0.5, 0.9, 0.99))
    assert f"p50 below {p50} frames, p90 below {p90}, p99 below\n{p99}" in PAGE
    assert f"(default {DEFAULT_LIMIT_MB};" in PAGE


def test_the_first_snippet_runs(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    full_plan().write(tmp_path / "street.fastseg")
    monkeypatch.chdir(tmp_path)
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(snippet, "docs/runtime.md", "exec"), {"frame": noise()})
    assert capsys.readouterr().out.startswith("onnxruntime ")
