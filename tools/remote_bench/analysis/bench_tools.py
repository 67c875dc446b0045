"""What the benchmark tools of others print: LiteRT's benchmark_model, ONNX Runtime's perf_test.

They time the graph alone, on made input, and print figures, not frames.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

LEFT_OUT = (
    "the graph alone on made input: no pre-processing, no copies of frames, no post-processing, "
    "and nobody looked at its class maps"
)
_NUMBER = r"([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"
_COUNTS = re.compile(r"\bcount=[0-9]+ [^\n]*")
_FIELD = re.compile(rf"\b(count|curr|min|max|avg|p5|median|p95)={_NUMBER}(?![\w.])")
_SUMMARY = re.compile(
    rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, "
    rf"Warmup \(avg\): {_NUMBER}, Inference \(avg\): {_NUMBER}(?![\w.])"
)
_LITERT_MB = re.compile(rf"emory footprint[^\n]*\(MB\)[^\n]*?(?:overall=|monitoring: ){_NUMBER}")
_DELEGATE = re.compile(r"[^\n]*\bexecuted by the delegate\b[^\n]*")
_SAME = 1e-3  # of the mean: the two lines that have it round it to six digits
_PERF_TEST = {
    "init": (r"Session creation time cost:", "s"),
    "count": (r"Total inference requests:", ""),
    "mean": (r"Average inference time cost(?: total)?:", "ms"),
    "min": (r"Min Latency:", "s"),
    "max": (r"Max Latency:", "s"),
    **{f"p{digits}": (f"P{digits} Latency:", "s") for digits in (50, 90, 95, 99)},
    "memory": (r"Peak working set size:", "bytes"),
    "rate": (r"Number of inferences per second:", ""),
}
_ONE_AT_A_TIME = 1.05  # inferences: the rate is no higher than one over the mean, but for rounding


@dataclass(frozen=True)
class ToolTimes:
    """The figures of one call of a tool; None where it does not print them."""

    count: int
    mean_ms: float
    min_ms: float
    max_ms: float
    percentiles_ms: dict[str, float]  # those of a report that it prints
    init_ms: float | None
    memory_mb: float | None  # what the tool calls its peak, or what it took since its start
    delegates: tuple[str, ...] = ()  # what it says of those that run the graph, or part of it

    def __post_init__(self) -> None:
        """Refuse what no clock can have given."""
        times = (self.min_ms, self.mean_ms, self.max_ms)
        if self.count < 1 or not all(isfinite(t) and t > 0 for t in times):
            raise ValueError(f"{self.count} inferences of {times} ms (least, mean, most)")
        if not self.min_ms <= self.mean_ms * (1 + _SAME) <= self.max_ms * (1 + _SAME) ** 2:
            raise ValueError(f"a mean of {self.mean_ms} ms outside of {times[0]} to {times[2]} ms")


@dataclass(frozen=True)
class Tool:
    """A tool: which artifacts it takes, how it is called, and how its figures are read."""

    name: str
    format: str
    arguments: Callable[[str, float, float], list[str]]  # model, seconds, s of warm-up
    read: Callable[[str], ToolTimes]


def tool_of(binary: str) -> Tool:
    """Return the tool that a file is by its name; every other name is benchmark_model's."""
    return PERF_TEST if "perf_test" in binary else BENCHMARK_MODEL


def read_benchmark_model(text: str) -> ToolTimes:
    """Read what benchmark_model printed.

    Raises:
        ValueError: it did not come to its end, or its figures make no sense.
    """
    summary = _SUMMARY.search(text)
    counts = _COUNTS.findall(text[: summary.start()]) if summary else []
    if summary is None or not counts:
        raise ValueError('no lines "count=..." and "Inference timings in us: ..."')
    # The last line is the timed run's, the one before it the warm-up's.
    us = {name: float(digits) for name, digits in _FIELD.findall(counts[-1])}
    mean_us = us.get("avg", us.get("curr", 0.0))  # of one inference there is no average
    if abs(mean_us - float(summary.group(4))) > _SAME * mean_us:
        raise ValueError(f"two means, {mean_us:g} and {summary.group(4)} us")
    memory = _LITERT_MB.search(text)
    known = {"p50": us.get("median"), "p95": us.get("p95")}
    return ToolTimes(
        count=int(us["count"]),
        mean_ms=mean_us / 1e3,
        min_ms=us.get("min", mean_us) / 1e3,
        max_ms=us.get("max", mean_us) / 1e3,
        percentiles_ms={name: value / 1e3 for name, value in known.items() if value},
        init_ms=float(summary.group(1)) / 1e3,
        memory_mb=float(memory.group(1)) if memory else None,
        delegates=tuple(dict.fromkeys(line.strip() for line in _DELEGATE.findall(text)))[:3],
    )


def read_perf_test(text: str) -> ToolTimes:
    """Read what onnxruntime_perf_test printed; see read_benchmark_model for the errors."""
    found = {
        name: float(match.group(1))
        for name, (label, unit) in _PERF_TEST.items()
        if (match := re.search(rf"^{label} *{_NUMBER} ?{unit}\s*$", text, re.MULTILINE))
    }
    if lacking := {"count", "mean", "min", "max"} - set(found):
        raise ValueError(f"no line for {', '.join(sorted(lacking))}")
    at_once = found.get("rate", 0.0) * found["mean"] / 1e3
    if at_once > _ONE_AT_A_TIME:
        raise ValueError(f"{at_once:.1f} inferences ran at once; expected one, leave -c out")
    return ToolTimes(
        count=int(found["count"]),
        mean_ms=found["mean"],
        min_ms=1e3 * found["min"],
        max_ms=1e3 * found["max"],
        percentiles_ms={name: 1e3 * found[name] for name in found if name[0] == "p"},
        init_ms=1e3 * found["init"] if "init" in found else None,
        memory_mb=found["memory"] / 2**20 if "memory" in found else None,
    )


BENCHMARK_MODEL = Tool(
    "benchmark_model",
    "tflite",
    lambda model, seconds, warmup_s: [
        f"--graph={model}",
        "--num_runs=3",
        f"--min_secs={seconds:g}",
        f"--max_secs={10 * seconds + 60:g}",
        "--warmup_runs=1",
        f"--warmup_min_secs={warmup_s:g}",
    ],
    read_benchmark_model,
)
PERF_TEST = Tool(
    "onnxruntime_perf_test",
    "onnx",
    lambda model, seconds, warmup_s: ["-I", "-m", "duration", "-t", f"{max(1, round(seconds))}",
                                      model],
    read_perf_test,
)  # fmt: skip
