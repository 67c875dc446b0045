import pytest
from remote_bench.agent import process

# user, nice, system, idle, iowait, irq, softirq, steal: in hundredths of a second.
BUSY = {0: 100, 1: 200, 2: 400, 3: 800}


@pytest.fixture
def cores(monkeypatch):
    def set_to(usable, seen=BUSY):
        rows = [f"cpu{n} {busy} 0 0 9 9 0 0 7" for n, busy in seen.items()]
        total = f"cpu  {sum(seen.values())} 0 0 9 9 0 0 7"
        stat = "\n".join([total, *rows, "intr 1 2 3"])
        monkeypatch.setattr(process, "_text", {"/proc/stat": stat}.get)
        monkeypatch.setattr(process.os, "sched_getaffinity", lambda pid: usable)

    monkeypatch.setattr(process, "_TICKS_PER_S", 100.0)
    return set_to


@pytest.mark.parametrize(
    ("usable", "seen", "busy_s"),
    [
        ({0, 1, 2, 3}, BUSY, 15.0),
        ({1, 3}, BUSY, 10.0),  # taskset, or a container's cpuset
        ({12, 13}, {0: 100, 1: 200}, 3.0),  # a container whose /proc/stat numbers its own anew
    ],
)
def test_busy_is_the_time_of_the_cores_that_we_may_run_on(cores, usable, seen, busy_s):
    cores(usable, seen)
    assert process.busy_cpu_seconds() == busy_s


def test_load_of_others_is_a_share_of_the_cores_that_we_may_run_on(cores, monkeypatch):
    cores({1, 3})
    monkeypatch.setattr(process, "processes", lambda cores=None: {})
    now = iter((0.0, 0.5))
    monkeypatch.setattr(process.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(process.time, "process_time", lambda: 0.0)

    def half_of_ours_is_used(seconds):
        cores({1, 3}, {**BUSY, 1: 250})

    assert process.foreign_load(0.5, half_of_ours_is_used)[0] == pytest.approx(0.5)


def test_of_the_busiest_none_is_named_that_runs_beside_our_cores(monkeypatch):
    stat = "{} (busy) R " + "0 " * 10 + "500 0 " + "0 " * 23 + "{} 0 0"
    texts = {f"/proc/{pid}/stat": stat.format(pid, core) for pid, core in ((71, 1), (72, 2))}
    monkeypatch.setattr(process, "_text", texts.get)
    monkeypatch.setattr(process.glob, "glob", lambda pattern: list(texts))
    assert list(process.processes()) == [71, 72]
    assert list(process.processes({0, 2})) == [72]


def test_without_the_kernels_counts_nobody_knows(monkeypatch):
    monkeypatch.setattr(process, "_text", lambda path: "")
    assert process.busy_cpu_seconds() is None


def test_sandbox_that_shows_zeros_counts_nothing(cores):
    cores({0, 1}, {0: 0, 1: 0})
    assert process.busy_cpu_seconds() is None


@pytest.mark.parametrize(("usable", "seen"), [({0, 1}, {0: 0, 1: 0}), ({1, 2}, BUSY)])
def test_load_of_others_is_that_of_their_processes_where_nothing_counts_it(
    cores, monkeypatch, usable, seen
):
    cores({1, 2, 3} if seen is BUSY else usable, seen)
    times = iter(({71: ("ffmpeg", 5.0), 72: ("sh", 1.0)}, {71: ("ffmpeg", 5.4), 72: ("sh", 1.0)}))
    monkeypatch.setattr(process, "processes", lambda cores=None: next(times))
    now = iter((0.0, 0.5))
    monkeypatch.setattr(process.time, "monotonic", lambda: next(now))
    share, names = process.foreign_load(0.5, lambda seconds: cores(usable, seen))
    cores_then = 3 if seen is BUSY else 2  # of which one is switched off meanwhile
    assert share == pytest.approx(0.4 / 0.5 / cores_then)
    assert names == [f"ffmpeg {share:.0%}"]
