"""The cache of engines: what it keeps, what it refuses, and what happens on a bad disk."""

import dataclasses
import errno
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastseg_runtime.engines.tensorrt.cache import (
    EngineCache,
    EngineKey,
    cache_folder,
    cache_limit_bytes,
    engine_key,
)
from fastseg_runtime.engines.tensorrt.cuda import Gpu
from fastseg_runtime.engines.tensorrt.platform import Platform, Release

from tests.doubles.fastseg_run import running

PLATFORM = Platform(
    release=Release("10.3.0", strongly_typed=False, checked=True),
    gpu=Gpu("Orin", "8.7", 8, True),
    cuda_runtime="12.6",
    cuda_driver="12.6",
    board="NVIDIA Jetson Orin Nano",
    l4t="36.4.3",
)
KEY = engine_key("a" * 64, "fp16", PLATFORM)
PLAN, RECORD = b"an engine", {"precision": "fp16", "flags": ["FP16"]}


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.WARNING, "fastseg_runtime"):
        yield caplog


def other_key(letter: str) -> EngineKey:
    return dataclasses.replace(KEY, artifact_sha256=letter * 64)


@pytest.mark.parametrize(
    "change",
    [
        {"release": Release("10.3.1", False, True)},
        {"gpu": Gpu("Orin", "8.7", 16, True)},
        {"gpu": Gpu("Orin", "7.2", 8, True)},
        {"board": "NVIDIA Jetson Orin NX"},
        {"l4t": "36.4.4"},
    ],
)
def test_another_platform_is_another_engine(change: dict[str, Any]) -> None:
    assert engine_key("a" * 64, "fp16", dataclasses.replace(PLATFORM, **change)) != KEY


def test_another_artifact_or_precision_is_another_engine() -> None:
    digests = {KEY.digest, other_key("b").digest, engine_key("a" * 64, "int8", PLATFORM).digest}
    assert len(digests) == 3


def test_a_stored_engine_comes_back_with_its_record_untrusted(cache: EngineCache) -> None:
    assert cache.load(KEY) is None
    assert cache.store(KEY, PLAN, RECORD)
    found = cache.load(KEY)
    assert found is not None and found.plan == PLAN and not found.trusted
    assert found.record["flags"] == ["FP16"]
    assert cache.load(other_key("b")) is None


def test_an_engine_is_trusted_after_its_self_test_and_not_before(cache: EngineCache) -> None:
    cache.store(KEY, PLAN, RECORD)
    cache.trust(KEY)
    assert cache.load(KEY).trusted  # type: ignore[union-attr]
    cache.store(KEY, b"built again", RECORD)
    assert not cache.load(KEY).trusted  # type: ignore[union-attr]


def test_trusting_what_is_not_kept_is_no_error(cache: EngineCache) -> None:
    cache.trust(KEY)
    assert cache.load(KEY) is None


def test_an_engine_without_a_build_record_is_refused(cache: EngineCache) -> None:
    cache.store(KEY, PLAN, RECORD)
    (cache.folder / f"{KEY.digest}.json").unlink()
    assert cache.load(KEY) is None


def test_an_exchanged_engine_is_refused_loudly(
    cache: EngineCache, logged: pytest.LogCaptureFixture
) -> None:
    cache.store(KEY, PLAN, RECORD)
    (cache.folder / f"{KEY.digest}.plan").write_bytes(b"evil code")
    assert cache.load(KEY) is None
    assert "not the file that was built here" in logged.text


def test_the_record_of_another_engine_does_not_serve(
    cache: EngineCache, logged: pytest.LogCaptureFixture
) -> None:
    cache.store(other_key("b"), PLAN, RECORD)
    for suffix in ("plan", "json"):
        source = cache.folder / f"{other_key('b').digest}.{suffix}"
        (cache.folder / f"{KEY.digest}.{suffix}").write_bytes(source.read_bytes())
    assert cache.load(KEY) is None
    assert "for another engine" in logged.text


@pytest.mark.parametrize("record", ["[]", "{", "null", '{"key": 3}'])
def test_a_damaged_record_is_no_record(record: str, cache: EngineCache) -> None:
    cache.store(KEY, PLAN, RECORD)
    (cache.folder / f"{KEY.digest}.json").write_text(record)
    assert cache.load(KEY) is None
    assert cache.entries() == []


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("mode", [0o777, 0o707, 0o770])
def test_a_folder_that_others_may_write_to_is_not_believed(
    mode: int, cache: EngineCache, logged: pytest.LogCaptureFixture
) -> None:
    cache.store(KEY, PLAN, RECORD)
    cache.store_timing_cache(KEY, b"timings")
    cache.folder.chmod(mode)
    assert cache.load(KEY) is None
    assert f"others can write to its folder (chown it to you and chmod 700 {cache.folder}" in (
        logged.text
    )
    assert cache.load_timing_cache(KEY) == b""


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_folder_that_others_could_write_to_while_it_was_read_is_not_believed(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.store(KEY, PLAN, RECORD)
    cache.folder.chmod(0o777)
    read = Path.read_bytes

    def read_and_close(path: Path) -> bytes:
        content = read(path)
        path.parent.chmod(0o700)
        return content

    monkeypatch.setattr(Path, "read_bytes", read_and_close)
    assert cache.load(KEY) is None


def pretend_owner(folder: Path, owner: int, user: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a folder belong to `owner`, and this process to `user`."""
    real_stat = Path.stat

    def stat(path: Path, **options: Any) -> os.stat_result:
        values = list(real_stat(path, **options))
        values[4] = owner if path == folder else values[4]
        return os.stat_result(values)

    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr("os.getuid", lambda: user)


@pytest.mark.skipif(os.name != "posix", reason="owners of POSIX")
@pytest.mark.parametrize(
    ("owner", "user", "believed"),
    [(1000, 1000, True), (0, 1000, True), (0, 0, True), (1001, 1000, False), (1000, 0, False)],
)
def test_only_a_folder_of_this_user_or_of_root_is_believed(
    owner: int,
    user: int,
    believed: bool,
    cache: EngineCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache.store(KEY, PLAN, RECORD)
    pretend_owner(cache.folder, owner, user, monkeypatch)
    assert (cache.load(KEY) is not None) == believed


def test_a_new_cache_folder_is_private_whatever_the_umask(cache: EngineCache) -> None:
    before = os.umask(0o002)  # of systems where every user has a group of his own
    try:
        cache.store(KEY, PLAN, RECORD)
    finally:
        os.umask(before)
    assert cache.folder.stat().st_mode & 0o077 == 0
    assert cache.load(KEY) is not None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_disk_is_a_warning_and_leaves_nothing_behind(
    code: int,
    cache: EngineCache,
    logged: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(source: str, target: str) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("os.replace", fail)
    assert not cache.store(KEY, PLAN, RECORD)
    assert "in memory only" in logged.text and "FASTSEG_CACHE" in logged.text
    assert list(cache.folder.iterdir()) == []


def test_a_cache_that_cannot_be_made_still_lets_one_build(
    tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = EngineCache(tmp_path / "file")
    with cache.building(KEY):
        assert not cache.store(KEY, PLAN, RECORD)
    assert cache.load(KEY) is None
    cache.store_timing_cache(KEY, b"timings")
    assert cache.load_timing_cache(KEY) == b""
    assert cache.entries() == [] and cache.clear() == 0


def test_an_error_while_building_frees_the_lock(cache: EngineCache) -> None:
    with pytest.raises(OSError, match="inside"), cache.building(KEY):
        raise OSError("inside")
    with cache.building(KEY):
        pass


def test_the_longest_unused_engines_go_when_the_limit_is_passed(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, limit_bytes=25)
    keys = [other_key(letter) for letter in "bcd"]
    for age, key in enumerate(keys):
        cache.store(key, b"x" * 10, RECORD)
        if key is not keys[-1]:
            os.utime(cache.folder / f"{key.digest}.json", (1000 + age, 1000 + age))
    assert [entry.digest for entry in cache.entries()] == [keys[1].digest, keys[2].digest]


def test_an_engine_larger_than_the_limit_is_kept_alone(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, limit_bytes=5)
    cache.store(other_key("b"), PLAN, RECORD)
    cache.store(KEY, PLAN, RECORD)
    assert [entry.digest for entry in cache.entries()] == [KEY.digest]


def test_using_an_engine_spares_it(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    for key in (KEY, other_key("b")):
        cache.store(key, PLAN, RECORD)
        os.utime(cache.folder / f"{key.digest}.json", (1000, 1000))
    cache.load(KEY)
    assert [entry.digest for entry in cache.entries()] == [other_key("b").digest, KEY.digest]


def test_a_clock_that_was_set_back_does_not_cost_the_engine_that_was_just_built(
    tmp_path: Path,
) -> None:
    cache = EngineCache(tmp_path, limit_bytes=len(PLAN))
    cache.store(KEY, PLAN, RECORD)
    os.utime(cache.folder / f"{KEY.digest}.json", (4e9, 4e9))  # used "in the future"
    cache.store(other_key("b"), PLAN, RECORD)
    assert cache.load(other_key("b")) is not None


def test_entries_say_what_is_kept_and_clear_removes_it(cache: EngineCache) -> None:
    cache.store(KEY, PLAN, RECORD)
    cache.trust(KEY)
    cache.store_timing_cache(KEY, b"timings")
    (entry,) = cache.entries()
    assert (entry.key, entry.bytes, entry.trusted) == (KEY, len(PLAN), True)
    assert cache.clear() > len(PLAN)
    assert cache.entries() == [] and cache.load_timing_cache(KEY) == b""


def test_timings_are_kept_per_tensorrt_and_gpu(cache: EngineCache) -> None:
    cache.store_timing_cache(KEY, b"timings")
    assert cache.load_timing_cache(other_key("b")) == b"timings"
    assert cache.load_timing_cache(dataclasses.replace(KEY, tensorrt="10.4.0")) == b""


def test_two_threads_that_want_one_engine_build_it_once(cache: EngineCache) -> None:
    builds, barrier = [], threading.Barrier(2)

    def want() -> None:
        barrier.wait(60)
        with cache.building(KEY):
            if cache.load(KEY) is None:
                builds.append(1)
                cache.store(KEY, PLAN, RECORD)

    threads = [threading.Thread(target=want, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert builds == [1]


WANT = """
import sys
from pathlib import Path
from fastseg_runtime.engines.tensorrt.cache import EngineCache, EngineKey
key = EngineKey("a" * 64, "fp16", "10.3.0", "Orin", "36.4.3")
cache = EngineCache(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
with cache.building(key):
    if cache.load(key) is None:
        print("built")
        cache.store(key, b"engine", {})
"""


def test_two_processes_that_want_one_engine_build_it_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WANT, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with running(command, **pipes) as first, running(command, **pipes) as second:
        for process in (first, second):
            process.stdout.readline()
        for process in (first, second):
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate()[0] for process in (first, second)]
    assert sorted(outputs) == ["", "built\n"]


def test_a_killed_builder_frees_the_lock(tmp_path: Path) -> None:
    hold = WANT.replace("    if cache.load(key) is None:", "    import os; os._exit(1)\n    if 1:")
    subprocess.run([sys.executable, "-c", hold, str(tmp_path)], input="go\n", text=True)
    with EngineCache(tmp_path).building(EngineKey("a" * 64, "fp16", "10.3.0", "Orin", "36.4.3")):
        pass


def test_the_folder_is_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FASTSEG_CACHE", raising=False)
    assert cache_folder() == tmp_path / "fastseg"
    monkeypatch.setenv("FASTSEG_CACHE", str(tmp_path / "elsewhere"))
    assert EngineCache().folder == tmp_path / "elsewhere" / "engines"
    monkeypatch.delenv("FASTSEG_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "fastseg"


def test_the_limit_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTSEG_CACHE_MB", "3")
    assert cache_limit_bytes() == 3_000_000
    monkeypatch.setenv("FASTSEG_CACHE_MB", "three")
    with pytest.raises(ValueError, match="FASTSEG_CACHE_MB is 'three'"):
        cache_limit_bytes()


def test_records_are_plain_json(cache: EngineCache) -> None:
    cache.store(KEY, PLAN, RECORD)
    record = json.loads((cache.folder / f"{KEY.digest}.json").read_text())
    assert record["key"]["gpu"].startswith("Orin (SM 8.7, 8 multiprocessors, NVIDIA Jetson")
