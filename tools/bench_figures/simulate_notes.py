"""How often a run that stands still gets a note: the product's own analysis of made results.

    python tools/bench_figures/simulate_notes.py [RUNS]

Frames of noise that hangs together (an autoregression), clocks of three CPU policies and the GPU
that jump among their steps, heat and power with the noise of sensors. Nothing drifts.
"""

import json
import random
import sys
from collections import Counter
from typing import Any

from fastseg_targets.device import load_device
from remote_bench.analysis.result import read_result
from remote_bench.analysis.summary import summarise

RUNS, SECONDS, IDLE_S, BLOCKS = 200, 20.0, 5.0, 3
STEPS_MHZ = (729.6, 1190.4, 1510.4, 1728.0)  # of an Orin Nano's CPU
# What a frame takes, by how much frames vary, and how much of that the next one has too.
KINDS = {"10 FPS, 12 %": (100.0, 0.12, 0.0), "10 FPS, 6 %, correlated": (100.0, 0.06, 0.8),
         "30 FPS, 5 %, correlated": (33.0, 0.05, 0.8)}  # fmt: skip


def main(runs: int) -> None:
    """Print, by kind of noise, the share of runs with a note and the notes that they have."""
    for kind, noise in KINDS.items():
        found = [notes(stationary(random.Random(seed), *noise)) for seed in range(runs)]
        share = sum(bool(codes) for codes in found) / runs
        print(f"{kind}: {share:.1%} of {runs} runs; {dict(Counter(c for f in found for c in f))}")


def notes(result: dict[str, Any]) -> list[str]:
    """Return the codes of what is graver than information."""
    report = summarise(read_result(json.dumps(result)), device=load_device("orin-nano"))
    return [reason.code for reason in report.reasons if reason.severity != "info"]


def stationary(rng: random.Random, mean_ms: float, spread: float, related: float) -> dict[str, Any]:
    """Return the result of a run in which nothing but noise moves."""
    columns: dict[str, list[float | None]] = {
        name: [] for name in ("t", "total_ms", "pre_ms", "infer_ms", "post_ms")
    }
    slices, t, deviation = [], IDLE_S, 0.0
    for _ in range(BLOCKS):
        begin, count = t, 0
        while t < begin + SECONDS / BLOCKS:
            deviation = related * deviation + rng.gauss(0, spread * (1 - related**2) ** 0.5)
            total = mean_ms * max(0.3, 1 + deviation)
            for name, part in (("t", t), ("total_ms", total), ("infer_ms", total)):
                columns[name].append(part)
            columns["pre_ms"].append(None)
            columns["post_ms"].append(None)
            t, count = t + total / 1e3, count + 1
        slices.append(part_of("flat_out", begin, t, count))
        t += 2.5  # opened anew, and warmed up
    end = t
    environment = [sample(rng, at) for at in range(int(end + IDLE_S))]
    times = [0.1 * n for n in range(int(10 * (end + IDLE_S)))]
    idle = [{"name": "idle_before", "begin": 0.0, "end": IDLE_S},
            {"name": "idle_after", "begin": end, "end": end + IDLE_S}]  # fmt: skip
    return {
        "schema": 1, "request": {"sampler_hz": 10}, "probe": PROBE, "phases": idle,
        "frames": {"flat_out": columns}, "slices": slices, "memory": {}, "error": None,
        "samples": {"environment": environment, "tegrastats": {}, "power": [
            {"source": "ina_hwmon", "unit": "mw", "rails": ["VDD_IN"], "wraps_at": [None],
             "t": times,
             "values": [[rng.gauss(9000 if IDLE_S < at < end else 4000, 300)] for at in times]}]},
        "info": {"backend": "tensorrt", "target": "jetson-fp16"},
        "accuracy": {"images": 2, "agreement": 0.99, "miou": None, "labelled": 0},
    }  # fmt: skip


def part_of(name: str, begin: float, end: float, frames: int) -> dict[str, Any]:
    """Return a slice in which nobody else used the CPU."""
    used = {"busy": [begin, end], "worker": [begin, end], "supervisor": [0.0, 0.0]}
    return {"name": name, "begin": begin, "end": end, "frames": frames, "late": 0, "fps": None,
            "cpu_s": used}  # fmt: skip


def sample(rng: random.Random, at: float) -> dict[str, Any]:
    """Return what is read once a second."""
    clocks = {f"cpu.policy{n}.requested": rng.choice(STEPS_MHZ) for n in (0, 4, 8)}
    return {"t": float(at), "alerts": [], "ran_on": [0, 1, 4, 8],
            "celsius": {"tj": round(rng.gauss(60, 0.4), 1)},
            "mhz": {**clocks, "gpu.x": rng.choice((918.0, 1020.0))}}  # fmt: skip


PROBE: dict[str, Any] = {
    "board": {"model": "Orin Nano", "compatible": [], "module": None, "serial_sha256": None},
    "system": {"machine": "aarch64", "kernel": "5", "distribution": None,
               "boot_id": None, "euid": 0},
    "cpu": {"model": None, "count": 6}, "memory": {"total_kb": None, "available_kb": None},
    "jetson": None, "python": {"version": "3.10", "modules": {}}, "packages": {},
    "power_mode": None, "settings": {}, "tools": {}, "readable": [],
}  # fmt: skip

if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
