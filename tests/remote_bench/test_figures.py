"""The figures of remote_bench, held to their limits on a quiet machine."""

import pytest
from fastseg_targets.device import load_device
from remote_bench.host.local import LocalHost
from remote_bench.run.benchmark import Untrained
from remote_bench.run.sweep import untrained_bundle

from tests.boards.measuring import Watcher, connect, run

pytestmark = pytest.mark.figures


@pytest.fixture
def export(tmp_path, monkeypatch):
    """Make a bundle of an untrained network, in a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    board = load_device("generic-x86")
    return lambda *network: untrained_bundle(Untrained(*network), None, board, Watcher())


def test_a_second_run_begins_its_first_frame_within_five_seconds(export, sshd, ssh_client):
    """All is uploaded; settling and idle measurement are left aside, as the figure says."""
    host = connect(ssh_client.add("board", sshd))
    bundle = export("base", 1024, 512)
    wanted = {"bundle": bundle, "seconds": 2, "warmup_s": 0.5, "idle_s": 0.5, "keep": True}
    waits = []
    for _ in range(2):
        watch = Watcher()
        assert run(host, watch, **wanted).error is None
        waits.append(watch.began["settle"] - watch.began["connect"])
    host.close()
    print(f"connect to first frame, settling and idle aside: {waits} s")
    assert waits[1] < 5


def test_the_sampler_costs_no_more_than_one_percent_of_the_frame_rate(export, made_board):
    """On a board whose rails, temperatures and clocks are read from files ten times a second."""
    root = made_board("orin-nano", tegrastats=None).root
    bundle = export("nano", 512, 256)
    report = run(LocalHost(), bundle=bundle, seconds=80, warmup_s=2, idle_s=1, root=str(root))
    sampler, power = report.sampler, report.power
    print(f"sampler: {sampler.overhead}, {sampler.cpu:.2%} of all cores")
    assert power.source == ("ina_hwmon",) and power.rate_hz > 8
    assert sampler.overhead.fraction <= 0.01
