"""The board's modules, each on its own; test_faults.py has them behind a real connection."""

import contextlib
import errno
import hashlib
import io
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from remote_bench.keeper import lock as locking
from remote_bench.keeper import store as storing
from remote_bench.keeper.deployment import deploy, require_room
from remote_bench.keeper.folder import (
    MARKER,
    RunFolder,
    difference,
    inside,
    inventory,
    keep_or_remove,
    our_folder,
    remove_run,
    sweep,
)
from remote_bench.keeper.lock import BoardLock
from remote_bench.keeper.main import Keeper
from remote_bench.keeper.store import Store
from remote_bench.keeper.wire import Refusal

KEEPER = Path(storing.__file__).parent


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def put(store: Store, content: bytes) -> str:
    store.offer(sha(content), len(content))
    store.write(content)
    store.commit(sha(content))
    return sha(content)


@pytest.fixture
def ours(tmp_path):
    return our_folder(str(tmp_path))


def test_the_board_side_needs_no_more_than_python_3_6():
    vermin = Path(sys.executable).with_name("vermin")
    travels = [str(KEEPER.parent / name) for name in ("keeper", "agent", "messages.py")]
    command = [str(vermin), "-t=3.6-", "--no-tips", *travels]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_damaged_upload_gets_no_name(ours):
    store = Store(ours)
    store.offer(sha(b"wanted"), 6)
    store.write(b"damage")
    with pytest.raises(Refusal, match="arrived damaged"):
        store.commit(sha(b"wanted"))
    assert os.listdir(f"{ours}/store") == []


@given(st.binary(max_size=300), st.data())
def test_an_upload_cut_anywhere_goes_on_from_there(tmp_path_factory, content, data):
    store = Store(str(tmp_path_factory.mktemp("ours")))
    cut = data.draw(st.integers(0, len(content)))
    store.offer(sha(content), len(content))
    store.write(content[:cut])
    store.close()
    offer = store.offer(sha(content), len(content))
    assert (offer["have"], offer["prefix_sha256"]) == (cut, sha(content[:cut]))
    store.write(content[cut:])
    store.commit(sha(content))
    assert store.offer(sha(content), len(content))["have"] == len(content)


def test_a_stored_file_that_was_damaged_later_is_not_offered_as_there(ours):
    store = Store(ours)
    name = put(store, b"content")
    Path(ours, "store", name).write_bytes(b"another")
    assert store.offer(name, 7)["have"] == 0


def test_an_upload_that_the_disk_cannot_hold_is_refused_before_it_begins(ours):
    with pytest.raises(Refusal, match="MB free, .* are needed"):
        Store(ours).offer("0" * 64, 10**18)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", ".", "..", "a/..", "x\0y"])
def test_no_name_leaves_the_work_folder(ours, name):
    folder = RunFolder(ours)
    with pytest.raises(Refusal, match="leaves the work folder|expected a relative"):
        inside(folder.path, name)


def test_a_link_in_the_work_folder_does_not_lead_out_of_it(ours, tmp_path):
    folder = RunFolder(ours)
    os.symlink(tmp_path, f"{folder.path}/link")
    with pytest.raises(Refusal, match="leaves"):
        inside(folder.path, "link/x")


def test_a_zip_that_wants_to_leave_its_folder_stays_inside(ours, tmp_path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("../../escaped", "x")
        archive.writestr("/absolute", "x")
    store = Store(ours)
    store.unpack(put(store, content.getvalue()), f"{ours}/into")
    assert sorted(os.listdir(f"{ours}/into")) == ["absolute", "escaped"]


def test_only_run_folders_of_ours_are_deleted(ours, tmp_path):
    os.mkdir(f"{ours}/run-unmarked")
    precious = tmp_path / "precious"
    precious.mkdir()
    os.symlink(precious, f"{ours}/run-link")
    for name in ("run-unmarked", "run-link", "../precious", "store"):
        with pytest.raises((Refusal, FileNotFoundError)):
            remove_run(ours, name)
    assert precious.exists()


def dead_run(ours: str, age_s: float = 0, **facts) -> str:
    """A run folder whose process is gone."""
    name = f"run-dead{len(os.listdir(ours))}"
    os.mkdir(f"{ours}/{name}")
    Path(ours, name, MARKER).write_text(json.dumps(facts))
    then = time.time() - age_s
    os.utime(f"{ours}/{name}", (then, then))
    return name


def test_the_sweep_takes_what_the_dead_left_and_no_more(ours):
    alive = RunFolder(ours)
    dead = dead_run(ours)
    waiting = dead_run(ours, detached=True)
    forgotten = dead_run(ours, 8 * 86400, detached=True)
    os.mkdir(f"{ours}/run-beingmade")
    assert sweep(ours) == sorted([dead, forgotten])
    assert {alive.run, waiting, "run-beingmade"} <= set(os.listdir(ours))


def test_a_clock_that_jumps_by_years_takes_no_detached_run_of_this_boot(ours, monkeypatch):
    year_s = 365 * 86400
    of_this_boot = dead_run(ours, year_s, detached=True, boot_id="this")
    earlier = dead_run(ours, year_s, detached=True, boot_id="an earlier one")
    monkeypatch.setattr(time, "monotonic", lambda: 3600.0)  # since the boot
    assert sweep(ours, "this") == [earlier]
    assert os.path.isdir(f"{ours}/{of_this_boot}")


def test_the_sweep_drops_uploads_of_a_run_that_was_killed_and_of_yesterday(ours):
    store = Store(ours)
    name = put(store, b"content")
    assert sweep(ours) == []
    then = time.time() - 2 * 86400
    os.utime(f"{ours}/store/{name}", (then, then))
    assert sweep(ours) == [name]
    put(store, b"content")
    dead = dead_run(ours, complete=True)
    assert sweep(ours) == [dead, "store"]


def test_what_is_kept_on_request_survives_the_sweep_until_a_run_without_the_request(ours):
    name = put(Store(ours), b"content")
    then = time.time() - 9 * 86400
    os.utime(f"{ours}/store/{name}", (then, then))
    keep_or_remove(ours, keep=True)
    assert sweep(ours) == [] and os.path.exists(f"{ours}/store/{name}")
    keep_or_remove(ours, keep=False)
    assert os.listdir(ours) == []


def test_a_folder_that_others_may_read_is_not_used(tmp_path):
    os.mkdir(tmp_path / f"remote_bench-{os.geteuid()}")
    os.chmod(tmp_path / f"remote_bench-{os.geteuid()}", 0o755)
    with pytest.raises(Refusal, match="expected mode 700"):
        our_folder(str(tmp_path))


@pytest.fixture
def lock_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(locking.tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_lock_is_held_once_and_says_by_whom(lock_folder):
    first = BoardLock(who="ann@laptop")
    with pytest.raises(Refusal, match="another run holds this board: .*ann@laptop"):
        BoardLock(who="bob@laptop")
    first.release()
    assert list(lock_folder.iterdir()) == []
    BoardLock(who="bob@laptop").release()


def test_a_lock_file_that_is_a_link_is_not_followed(lock_folder, tmp_path):
    target = tmp_path / "target"
    target.write_text("precious")
    (lock_folder / locking.NAME).symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        BoardLock(who="me")
    assert target.read_text() == "precious"


@pytest.mark.parametrize("writable", [True, False])
def test_board_without_a_temporary_folder_is_locked_in_memory_or_says_what_to_do(
    tmp_path, monkeypatch, writable
):
    def none_there():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(locking.tempfile, "gettempdir", none_there)
    memory = tmp_path / "shm" if writable else tmp_path / "missing"
    (tmp_path / "shm").mkdir()
    monkeypatch.setattr(locking, "_IN_MEMORY", (str(tmp_path / "missing"), str(memory)))
    locking.free_lock_of_the_dead()
    if writable:
        first = BoardLock(who="ann@laptop")
        with pytest.raises(Refusal, match="ann@laptop"):
            BoardLock(who="bob@laptop")
        first.release()
        return
    with pytest.raises(Refusal, match=r"\['/tmp'\], .*/missing; export TMPDIR") as refused:
        BoardLock(who="me")
    assert refused.value.kind == "no_folder"


def test_a_deployment_appears_whole_and_replaces_only_an_earlier_one(tmp_path):
    source = tmp_path / "net.fastseg"
    source.write_bytes(b"one")
    target = tmp_path / "app"
    record = deploy(str(target), {"net.fastseg": str(source)}, {"fps": 30})
    assert record["files"] == {"net.fastseg": sha(b"one")}
    source.write_bytes(b"two")
    deploy(str(target), {"net.fastseg": str(source)}, {"fps": 31})
    assert (target / "net.fastseg").read_bytes() == b"two"
    assert json.loads((target / "deployed.json").read_text())["report"] == {"fps": 31}
    assert sorted(os.listdir(target)) == ["deployed.json", "net.fastseg"]


def test_a_deployment_does_not_touch_what_somebody_else_put_there(tmp_path):
    source = tmp_path / "net.fastseg"
    source.write_bytes(b"one")
    target = tmp_path / "app"
    target.mkdir()
    (target / "net.fastseg").write_bytes(b"theirs")
    with pytest.raises(Refusal, match="of somebody else"):
        deploy(str(target), {"net.fastseg": str(source)}, {})
    assert (target / "net.fastseg").read_bytes() == b"theirs"
    assert os.listdir(target) == ["net.fastseg"]


@pytest.fixture
def parts(tmp_path):
    for name in ("runtime", "cache"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("new")
    (tmp_path / "net").write_text("new")
    return {name: str(tmp_path / name) for name in ("runtime", "net", "cache")}


def test_a_deployment_replaces_no_name_that_the_earlier_one_did_not_have(tmp_path, parts):
    app = tmp_path / "app"
    deploy(str(app), {"runtime": parts["runtime"]}, {})
    (app / "cache").mkdir()
    (app / "cache/recording").write_text("precious")
    with pytest.raises(Refusal, match=r"holds \['cache'\] of somebody else"):
        deploy(str(app), parts, {})
    assert (app / "cache/recording").read_text() == "precious"


def test_a_deployment_replaces_what_any_earlier_one_left(tmp_path, parts):
    app = tmp_path / "app"
    deploy(str(app), {"runtime": parts["runtime"]}, {})
    (app / "cache").mkdir()  # an empty folder is nobody's
    deploy(str(app), parts, {})
    deploy(str(app), {"runtime": parts["runtime"]}, {})  # leaves net and cache
    deploy(str(app), parts, {})
    assert sorted(os.listdir(app)) == ["cache", "deployed.json", "net", "runtime"]


def test_a_record_of_files_alone_is_one_of_an_earlier_version(tmp_path, parts):
    app = tmp_path / "app"
    deploy(str(app), parts, {})
    record = json.loads((app / "deployed.json").read_text())
    (app / "deployed.json").write_text(json.dumps({"files": record["files"], "report": {}}))
    deploy(str(app), parts, {})


@pytest.mark.parametrize("record", ["", "{}", "[1", '{"files": 3}'])
def test_a_record_that_is_none_of_ours_is_somebody_elses(tmp_path, parts, record):
    (tmp_path / "deployed.json").write_text(record)
    with pytest.raises(Refusal, match=r"deployed\.json cannot be read; remove it, or choose"):
        require_room(str(tmp_path), ["bundle"])


def test_what_is_deployed_can_be_read_by_an_app_of_another_user(tmp_path, parts):
    old = os.umask(0o077)
    try:
        (tmp_path / "site/fast").mkdir(parents=True)
        (tmp_path / "site/fast/tool").write_text("#!/bin/sh")
        (tmp_path / "site/fast/tool").chmod(0o700)
        deploy(str(tmp_path / "new/app"), {**parts, "site": str(tmp_path / "site")}, {})
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(old)
    for path in (tmp_path / "new", *(tmp_path / "new").rglob("*")):
        is_open = path.is_dir() or path.name == "tool"
        assert path.stat().st_mode & 0o777 == (0o755 if is_open else 0o644), path


def contents(app):
    return {path: path.read_bytes() for path in app.rglob("*") if path.is_file()}


def watch_renames(monkeypatch, before_each):
    """Have before_each(source, target) called before each rename and each replacement."""

    def watch(move):
        def watched(source, target):
            before_each(source, target)
            move(source, target)

        return watched

    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, watch(getattr(os, name)))


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("at", range(1, 7))
@pytest.mark.parametrize("has_earlier", [True, False])
def test_a_deployment_that_breaks_off_leaves_the_earlier_one(
    tmp_path, parts, monkeypatch, at, links, has_earlier
):
    app = tmp_path / "app"
    app.mkdir()
    if has_earlier:
        deploy(str(app), parts, {"fps": 1})
    before, seen = contents(app), []
    for name in ("runtime/x", "cache/x", "net"):
        (tmp_path / name).write_text("newer")

    def break_at(source, target):
        seen.append(target)
        if len(seen) == at:
            raise OSError(errno.ENOSPC, "No space left on device")

    watch_renames(monkeypatch, break_at)
    if not links:
        monkeypatch.setattr(os, "link", lambda *_, **__: (_ for _ in ()).throw(OSError("no links")))
    try:
        deploy(str(app), parts, {"fps": 2})
    except OSError:
        assert before == contents(app)
    assert len(seen) >= at or not has_earlier
    assert not [name for name in os.listdir(app) if name.startswith(".")]


def test_a_file_and_the_record_are_there_at_any_time_of_a_deployment(tmp_path, parts, monkeypatch):
    app = tmp_path / "app"
    deploy(str(app), parts, {"fps": 1})

    def look(source, target):
        assert (app / "net").is_file()
        names = json.loads((app / "deployed.json").read_text())["names"]
        assert target != str(app / "site") or "site" in names

    watch_renames(monkeypatch, look)
    deploy(str(app), {**parts, "site": parts["cache"]}, {"fps": 2})
    assert json.loads((app / "deployed.json").read_text())["report"] == {"fps": 2}


def test_what_a_killed_deployment_left_is_swept_and_is_in_nobodys_way(tmp_path, parts, monkeypatch):
    app = tmp_path / "app"
    deploy(str(app), {"net": parts["net"]}, {})
    (app / ".deploy-settings").mkdir()
    (app / ".deploy-settings/mine").touch()

    def kill(source, target):
        if target == str(app / "runtime"):
            os._exit(0)

    if (child := os.fork()) == 0:
        watch_renames(monkeypatch, kill)
        deploy(str(app), {**parts, "net": parts["net"]}, {})
    os.waitpid(child, 0)
    assert len([name for name in os.listdir(app) if name.startswith(".")]) == 3
    deploy(str(app), parts, {})
    names = [".deploy-settings", "cache", "deployed.json", "net", "runtime"]
    assert sorted(os.listdir(app)) == names


def test_a_folder_of_the_version_that_closed_it_is_opened(tmp_path, parts):
    app = tmp_path / "app"
    deploy(str(app), parts, {})
    app.chmod(0o700)
    deploy(str(app), parts, {})
    assert app.stat().st_mode & 0o777 == 0o700  # by its user
    record = json.loads((app / "deployed.json").read_text())
    (app / "deployed.json").write_text(json.dumps({"files": record["files"]}))
    deploy(str(app), parts, {})
    assert app.stat().st_mode & 0o777 == 0o755


def test_a_folder_that_nobody_may_look_into_is_taken(tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(os, "listdir", lambda path: (_ for _ in ()).throw(PermissionError(path)))
    with pytest.raises(Refusal, match=r"holds \['cache'\] of somebody else"):
        require_room(str(tmp_path), ["cache"])


@pytest.mark.parametrize("has_earlier", [True, False])
def test_a_cache_of_the_apps_own_is_in_the_way_where_nothing_says_there_is_no_engine(
    tmp_path, parts, has_earlier
):
    if has_earlier:
        deploy(str(tmp_path / "app"), {"net": parts["net"]}, {})
    (tmp_path / "app/cache").mkdir(parents=True)
    (tmp_path / "app/cache/recording").touch()
    with contextlib.nullcontext() if has_earlier else pytest.raises(Refusal, match="cache"):
        Keeper.may_deploy(None, str(tmp_path / "app"), ["net"])


def test_whether_a_deployment_can_work_is_known_before_anything_is_made(tmp_path):
    require_room(str(tmp_path / "new/app"), ["net.fastseg"])
    assert os.listdir(tmp_path) == []
    (tmp_path / "net.fastseg").write_bytes(b"theirs")
    with pytest.raises(Refusal, match="of somebody else"):
        require_room(str(tmp_path), ["net.fastseg"])
    with pytest.raises(Refusal, match="cannot be made or written"):
        require_room(str(tmp_path / "net.fastseg/app"), ["other"])


def test_an_inventory_tells_what_came_and_went(tmp_path):
    (tmp_path / "a").mkdir()
    before = inventory([str(tmp_path), str(tmp_path / "absent")])
    (tmp_path / "a").rmdir()
    (tmp_path / "b").mkdir()
    found = difference(before, inventory([str(tmp_path)]))
    assert found == {
        "before": 1,
        "after": 1,
        "appeared": [f"{tmp_path}/b"],
        "disappeared": [f"{tmp_path}/a"],
    }
