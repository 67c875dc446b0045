"""The figures of remote_bench, held to their limits on a quiet machine."""

import time

import pytest
from fastseg_targets.device import load_device
from remote_bench.host.local import LocalHost
from remote_bench.host.ssh import SshHost
from remote_bench.host.watch import Cancel
from remote_bench.run.bench import measure
from remote_bench.run.plan import Plan, Untrained
from remote_bench.run.sweep import untrained_bundle

pytestmark = pytest.mark.figures


class Clock:
    """Remembers when each phase began."""

    def __init__(self) -> None:
        self.began: dict[str, float] = {}

    def phase(self, name: str) -> None:
        self.began.setdefault(name, time.monotonic())

    def progress(self, done, total, fps=None) -> None:
        pass

    def note(self, text: str) -> None:
        pass


@pytest.fixture
def export(tmp_path, monkeypatch):
    """Make a bundle of an untrained network, in a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    board = load_device("generic-x86")
    return lambda *network: untrained_bundle(Untrained(*network), None, board, Clock())


def test_a_second_run_begins_its_first_frame_within_five_seconds(export, sshd, ssh_client):
    """All is uploaded; settling and idle measurement are left aside, as the figure says."""
    host = SshHost(ssh_client.add("board", sshd), lambda prompt: None)
    bundle = export("base", 1024, 512)
    plan = Plan(bundle=bundle, seconds=2, warmup_s=0.5, idle_s=0.5, keep=True)
    waits = []
    for _ in range(2):
        watch = Clock()
        assert measure(host, plan, watch, Cancel())["error"] is None
        waits.append(watch.began["settle"] - watch.began["connect"])
    host.close()
    print(f"connect to first frame, settling and idle aside: {waits} s")
    assert waits[1] < 5


def test_the_sampler_costs_no_more_than_one_percent_of_the_frame_rate(export, made_board):
    """On a board whose rails, temperatures and clocks are read from files ten times a second."""
    root = made_board("orin-nano", tegrastats=None).root
    bundle = export("nano", 512, 256)
    plan = Plan(bundle=bundle, seconds=80, warmup_s=2, idle_s=1, root=str(root))
    report = measure(LocalHost(), plan, Clock(), Cancel())
    sampler, power = report["sampler"], report["power"]
    print(f"sampler: {sampler['overhead']}, {sampler['cpu']:.2%} of all cores")
    assert power["source"] == ["ina_hwmon"] and power["rate_hz"] > 8
    assert sampler["overhead"]["fraction"] <= 0.01
