"""The page of --view: who may see it, what it shows, and that it delays nobody."""

import dataclasses
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.arrays.command import UsageError
from fastseg_runtime.arrays.image import read_image
from fastseg_runtime.frames.stream import StreamFrame
from fastseg_runtime.frames.view import TimedHandler, View, is_this_machine

from tests.doubles.browser import CHROMIUM, Browser
from tests.doubles.tiny_bundle import noise


@pytest.fixture
def session(bundle_path: Path) -> Iterator[RealtimeSegmentation]:
    with RealtimeSegmentation(bundle_path, deadline_ms=1000) as session:
        yield session


@pytest.fixture
def view(session: RealtimeSegmentation, tmp_path: Path) -> Iterator[View]:
    with View(session, "127.0.0.1", tmp_path / "saved") as view:
        yield view


def frame_of(session: RealtimeSegmentation, index: int = 0) -> StreamFrame:
    image = noise(48, 64, seed=index)
    classes = session.infer(image)
    return StreamFrame(index, image, classes, session.overlay(image, classes), 3, 0, 0.0)


def ask(
    view: View, method: str, path: str, host: str | None = None
) -> tuple[int, bytes, dict[str, str]]:
    port = view.url.split(":")[2].split("/")[0]
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=20)
    connection.request(method, path, headers={"Host": host or f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content, dict(answer.headers)


def test_nothing_is_shown_without_the_token(view: View) -> None:
    for path in (
        "/",
        "/state",
        "/stream",
        f"/{view.token}",
        f"/{view.token[:-1]}/",
        "/%C3%A9/state",
        "/../state",
    ):
        for method in ("GET", "POST"):
            assert ask(view, method, path)[0] == 404
    assert len(view.token) >= 20


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "x"])
def test_a_name_that_somebody_pointed_here_is_refused(host: str, view: View) -> None:
    for method, name in (("GET", "state"), ("POST", "pause")):
        assert ask(view, method, f"/{view.token}/{name}", host)[0] == 421


def test_a_name_is_the_same_in_capitals_as_browsers_never_send_it() -> None:
    assert is_this_machine("mypc.lan:8080", "MyPC.lan")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9000", "[::1]:80", "192.168.1.9", None])
def test_addresses_of_this_machine_are_taken(host: str | None, view: View) -> None:
    status, page, headers = ask(view, "GET", f"/{view.token}/", host)
    assert status == 200 and b"<title>fastseg</title>" in page
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert (headers["Referrer-Policy"], headers["Cache-Control"]) == ("no-referrer", "no-store")
    assert not re.search(rb"https?://|//[a-z]", page)  # no script or picture from outside


def test_the_state_says_what_runs(view: View, session: RealtimeSegmentation) -> None:
    assert json.loads(ask(view, "GET", f"/{view.token}/state")[1])["frames"] == 0
    for index in range(5):
        view.show(frame_of(session, index))
        time.sleep(0.02)
    state = json.loads(ask(view, "GET", f"/{view.token}/state")[1])
    figures = dict(state["figures"])
    assert (state["frames"], figures["dropped"], figures["later than 1000 ms"]) == (5, "3", "0")
    assert "mean confidence" not in figures
    half = np.full((48, 64), 128, np.uint8)
    view.show(dataclasses.replace(frame_of(session, 5), confidence=half))
    state = json.loads(ask(view, "GET", f"/{view.token}/state")[1])
    assert dict(state["figures"])["mean confidence"] == "50%"
    assert 1 < float(figures["FPS"]) < 60 and figures["infer"].endswith(" ms")
    assert sum(share for _, share, _ in state["shares"]) == pytest.approx(1)
    assert {name for name, _, _ in state["shares"]} <= {e.name for e in session.classes}


def test_a_click_saves_the_frame_with_its_mask_and_the_next_one_goes_on(
    view: View, session: RealtimeSegmentation, tmp_path: Path
) -> None:
    assert ask(view, "GET", f"/{view.token}/pause")[0] == 404  # a POST alone does something
    view.show(frame_of(session, 7))
    said = json.loads(ask(view, "POST", f"/{view.token}/pause")[1])["said"]
    picture, mask = sorted((tmp_path / "saved").iterdir(), key=lambda file: len(file.name))
    assert picture.name in said and mask.name in said and "-7." in picture.name
    expected = noise(48, 64, seed=7)
    assert np.array_equal(read_image(picture), expected)
    ids = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
    assert ids.shape[:2] == expected.shape[:2]
    assert view.paused is not None
    assert json.loads(ask(view, "POST", f"/{view.token}/pause")[1])["said"] == "it goes on"
    assert view.paused is None


class Viewer:
    """Reads the stream of pictures from a bare socket."""

    def __init__(self, view: View) -> None:
        host, port = "127.0.0.1", int(view.url.split(":")[2].split("/")[0])
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect((host, port))
        request = f"GET /{view.token}/stream HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n"
        self.socket.sendall(request.encode())

    def pictures(self, during_s: float) -> list[Any]:
        self.socket.settimeout(0.2)
        content, end_s = b"", time.monotonic() + during_s
        while time.monotonic() < end_s:
            try:
                content += self.socket.recv(1 << 16)
            except TimeoutError:
                continue
        parts = content.split(b"--frame\r\n")[1:-1]
        jpegs = [np.frombuffer(part.split(b"\r\n\r\n", 1)[1], np.uint8) for part in parts]
        return [cv2.imdecode(jpeg, cv2.IMREAD_COLOR) for jpeg in jpegs]


@pytest.mark.slow
def test_a_viewer_sees_ten_pictures_a_second_and_a_stalled_one_delays_nobody(
    view: View, session: RealtimeSegmentation
) -> None:
    stalled, viewer = Viewer(view), Viewer(view)
    frames = [frame_of(session, index) for index in range(8)]
    done: list[float] = []

    def run() -> None:
        for index in range(120):
            start_s = time.monotonic()
            view.show(frames[index % 8])
            done.append(time.monotonic() - start_s)
            time.sleep(0.02)

    runner = threading.Thread(target=run, daemon=True)
    runner.start()
    pictures = viewer.pictures(during_s=2)
    runner.join(60)
    assert len(pictures) >= 20 and all(p.shape == (48, 64, 3) for p in pictures)
    assert max(done) < 0.1
    stalled.socket.close()
    viewer.socket.close()


def test_no_picture_is_encoded_where_nobody_looks(
    view: View, session: RealtimeSegmentation
) -> None:
    for index in range(5):
        view.show(frame_of(session, index))
        time.sleep(0.05)
    assert view.number == 0


@pytest.mark.slow
def test_more_connections_than_a_few_are_turned_away(view: View) -> None:
    viewers = [Viewer(view) for _ in range(20)]
    time.sleep(0.5)
    assert view.viewers <= 16
    for viewer in viewers:
        viewer.socket.close()


def test_who_never_ends_a_request_locks_nobody_out(
    view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TimedHandler, "timeout", 1.0)
    address = ("127.0.0.1", int(view.url.split(":")[2].split("/")[0]))
    slow = []
    for _ in range(16):
        slow.append(socket.create_connection(address))
        time.sleep(0.01)  # a few wait at a time to be accepted
    status, end_s = 0, time.monotonic() + 5
    while status != 200:
        assert time.monotonic() < end_s
        for one in slow:
            with suppress(OSError):  # it was given up
                one.sendall(b"G")
        time.sleep(0.1)
        with suppress(OSError, http.client.HTTPException):
            status = ask(view, "GET", f"/{view.token}/state")[0]
    for one in slow:
        one.close()


def test_viewers_who_leave_while_no_picture_comes_make_room_for_others(
    view: View, session: RealtimeSegmentation
) -> None:
    view.show(frame_of(session))
    viewers = [Viewer(view) for _ in range(20)]
    end_s = time.monotonic() + 20
    while view.viewers < 16:
        assert time.monotonic() < end_s
        time.sleep(0.01)
    for viewer in viewers:
        viewer.socket.close()
    while view.viewers:
        assert time.monotonic() < end_s
        time.sleep(0.01)
    assert ask(view, "GET", f"/{view.token}/state")[0] == 200


def test_a_viewer_who_has_seen_nothing_is_sent_away_at_the_end(
    session: RealtimeSegmentation, tmp_path: Path
) -> None:
    with View(session, "127.0.0.1", tmp_path) as view:
        viewer = Viewer(view)
        end_s = time.monotonic() + 5
        while not view.viewers:
            assert time.monotonic() < end_s
            time.sleep(0.01)
    end_s = time.monotonic() + 5
    while view.viewers:
        assert time.monotonic() < end_s
        time.sleep(0.01)
    viewer.socket.close()


def test_closing_waits_for_no_viewer(session: RealtimeSegmentation, tmp_path: Path) -> None:
    with View(session, "127.0.0.1", tmp_path) as view:
        stalled = Viewer(view)
        view.show(frame_of(session))
        start_s = time.monotonic()
    assert time.monotonic() - start_s < 3
    stalled.socket.close()


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "127.0.0.1:http", "nowhere.invalid:80"])
def test_an_address_that_cannot_be_had_is_told(
    address: str, session: RealtimeSegmentation, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"--view {address}: .*; write HOST or HOST:PORT"):
        View(session, address, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_shows_the_run_and_a_click_saves_a_frame(
    view: View, session: RealtimeSegmentation, tmp_path: Path
) -> None:
    ended = threading.Event()

    def run() -> None:
        index = 0
        while not ended.wait(0.05):
            view.show(frame_of(session, index))
            index += 1

    runner = threading.Thread(target=run, daemon=True)
    runner.start()
    try:
        with Browser(tmp_path / "profile", view.url) as page:
            page.wait_for("document.body.dataset.frames > 0")
            page.wait_for("document.querySelector('img').naturalWidth === 64")
            text = page.value("document.querySelector('main').innerText")
            assert "FPS" in text and "dropped" in text and session.classes[0].name in text
            page.value("document.getElementById('save').click()")
            page.wait_for("document.getElementById('said').textContent.startsWith('paused; saved')")
    finally:
        ended.set()
        runner.join(60)
    assert len(list((tmp_path / "saved").iterdir())) == 2
