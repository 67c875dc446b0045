import base64
import dataclasses
import json
import re
import shutil
import socket
import subprocess
import threading
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from remote_bench.analysis.report import BundleFacts, Soak, SoakPoint
from remote_bench.analysis.requirements import parse
from remote_bench.analysis.result import failed_result
from remote_bench.analysis.summary import summarise
from remote_bench.host.live import plain
from remote_bench.report.outcome import check_requirements
from remote_bench.report.page import render_html, write_html
from remote_bench.report.plots import Line, escaped, histogram, time_plot

HOSTILE = '"><script>fetch("{0}")</script><img src={0} onerror=alert(1)>\x1b[31m\u202e&amp;</style>'
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Tags(HTMLParser):
    """Collects the tags, the attributes and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)


def hostile_report(report_of, made_result, url):
    text = HOSTILE.format(url)
    raw = made_result(seconds=3)
    raw["probe"]["board"]["model"] = text
    raw["probe"]["packages"] = {text: text}
    for sample in raw["samples"]["environment"]:
        sample["celsius"] = {text: 40.0, "b": 41.0}
    raw["error"] = {"kind": text, "message": text}
    raw["samples"]["tegrastats"]["failure"] = text
    raw["log"] = f"line\n{text}"
    raw["probe"]["python"]["version"] = text
    return report_of(raw, host=text, bundle=BundleFacts(name=text), run_id=text)


def test_page_has_the_verdict_before_any_figure_and_all_plots(report_of, made_result):
    page = render_html([report_of(made_result(), host="jetson.local")])
    assert page.index("verdict valid") < page.index("<svg") < page.index("<h3>Speed")
    titles = re.findall(r'aria-label="([^"]+)"', page)
    assert [title.split()[0] for title in titles] == [
        "Latency", "Power", "Temperature", "Clocks", "Latency,",
    ]  # fmt: skip


def test_power_temperature_clocks_and_latency_share_one_time_axis(report_of, made_result):
    page = render_html([report_of(made_result())])
    plots = page.split('<svg class="plot"')[1:5]
    ticks = [re.findall(r'text-anchor="middle">([^<]+)<', plot) for plot in plots]
    assert ticks[0] and all(found == ticks[0] for found in ticks)


def test_hostile_names_and_lines_stay_text(report_of, made_result):
    page = render_html([hostile_report(report_of, made_result, "http://x/")])
    tags = Tags(page)
    assert not {"script", "img", "iframe", "object"} & set(tags.tags)
    assert not any(name.startswith("on") for name, _ in tags.attributes)
    assert any('<script>fetch("http://x/")</script>' in text for text in tags.texts)
    assert "\x1b" not in page and "\u202e" not in page


def test_page_loads_nothing_from_outside(report_of, made_result):
    page = render_html([report_of(made_result())])
    links = [value for name, value in Tags(page).attributes if name in ("src", "href")]
    assert links and all(link.startswith(("#", "data:")) for link in links)
    assert "default-src 'none'" in page and "@import" not in page and "url(" not in page


def test_page_of_a_run_that_failed_says_why_and_has_no_plot(made_result):
    raw = failed_result({}, made_result()["probe"], "rebooted", "the board rebooted")
    page = render_html([summarise(raw)])
    assert "the board rebooted" in page and "<svg" not in page


def test_several_reports_share_a_page_with_a_table_on_top(report_of, made_result):
    reports = [report_of(made_result(), host=host) for host in ("a.local", "b.local")]
    page = render_html(reports)
    assert page.count("<h2 ") == 2
    table = page[: page.index("<h2 ")]
    assert 'href="#run-1">1: a.local' in table and 'href="#run-2">2: b.local' in table
    assert "<td>frames a second</td><td>100.00 (95 %: " in table


def test_two_runs_of_one_host_are_told_apart(report_of, made_result):
    reports = [
        report_of(made_result(info={"target": target}), host="a", run_id=target)
        for target in ("cpu-fp32", "cpu-int8")
    ]
    table = render_html(reports).partition("<h2 ")[0]
    assert "1: a · cpu-fp32" in table and "2: a · cpu-int8" in table


def test_requirements_stand_on_top_with_their_margins(report_of, made_result):
    report = check_requirements(report_of(made_result()), parse("fps>=80,p99<=5ms,valid"))
    page = render_html([report])
    top = page[: page.index("<svg")]
    assert "<td>fps&gt;=80</td><td>kept by 25.0% of the limit</td><td>measured 100" in top
    assert "<td>p99&lt;=5ms</td><td>missed by 100.0% of the limit</td><td>measured 10 ms" in top
    assert "<td>valid</td><td>kept</td>" in top
    latency = page.split('<svg class="plot"')[1]
    assert ">p99&lt;=5ms<" in latency and ">p50<" in latency


def test_page_has_what_the_figures_hang_on(report_of, made_result):
    raw = made_result(blocks=3, info={"target": "t", "threads": 4, "usable_cores": 2})
    raw["request"] |= {"seconds": 20, "repeats": 3}
    raw["probe"]["cpu"] = {"model": "Cortex-A78AE", "count": 6}
    raw["probe"]["settings"]["/sys/policy0/scaling_governor"] = "schedutil"
    facts = BundleFacts(width=480, height=360, artifact_sha256="ab12", parameters=1234567)
    page = render_html([report_of(raw, bundle=facts, host="orin", address="10.0.0.7")])
    for text in ("480x360", "artifact ab12", "1,234,567", "20 s timed, in 3 blocks", "Cortex-A78AE",
                 "6 cores", "7.6 GB", "schedutil", "15W", "10.0.0.7", "it may use 2 cores",
                 "interval between 3 blocks of one run", "(95 %: "):  # fmt: skip
        assert text in page, text


def test_raw_numbers_are_a_link_away_from_every_plot(report_of, made_result):
    report = report_of(made_result(seconds=3))
    links = dict(re.findall(r'download="([^"]+)" href="data:[^,]+,([^"]+)"', render_html([report])))
    assert set(links) == {
        "report.json", "frames.csv", "power.csv", "temperature.csv", "clocks.csv",
    }  # fmt: skip
    assert json.loads(base64.b64decode(links["report.json"]))["fps"] == report.fps
    head, first, *_ = base64.b64decode(links["frames.csv"]).decode().splitlines()
    assert head == '"t_s","total_ms"' and first == "0.0,10.0"


def test_soak_is_drawn_over_minutes(report_of, made_result):
    points = tuple(SoakPoint(30.0 * n, 30.0 - n, None, 50.0 + n) for n in range(10))
    soak = Soak(5.0, False, points[0], points[-1], points)
    page = render_html([dataclasses.replace(report_of(made_result()), soak=soak)])
    assert "Soak: FPS" in page and "Soak: W" not in page and "4 min<" in page
    assert "<td>sustained</td><td>21.00 FPS</td>" in page


def test_what_lies_outside_of_the_axes_is_cut_off_and_outliers_do_not_flatten_the_rest():
    values = np.append(np.linspace(10, 12, 999), 500.0)
    plot = time_plot("x", "ms", [Line("a", np.arange(-50.0, 950.0), values, points=True)], (0, 900))
    assert ">20<" not in plot and 'viewBox="64 30 840 136"' in plot
    assert "the last bar has" in histogram("x", "ms", values)


def test_board_without_a_report_is_named_beside_the_others(report_of, made_result):
    page = render_html([report_of(made_result())], {"<orin>": "another run holds this board"})
    assert "<td>&lt;orin&gt;</td><td>no report</td><td>another run holds this board</td>" in page


def test_file_is_written_whole_or_not_at_all(report_of, made_result, tmp_path):
    path = tmp_path / "report.html"
    write_html([report_of(made_result())], path)
    before = path.read_text()
    broken = dataclasses.replace(report_of(made_result()), device=None)
    with pytest.raises(AttributeError):
        write_html([broken], path)
    with pytest.raises(ValueError, match="no report"):
        write_html([], path)
    assert path.read_text() == before and [p.name for p in tmp_path.iterdir()] == ["report.html"]


@given(st.text())
def test_plain_text_is_one_line_without_control_characters(text):
    shown = plain(text)
    assert all(character.isprintable() or character == "\u3000" or character.isspace()
               for character in shown)  # fmt: skip
    assert "\n" not in shown and "\x1b" not in shown and "\x9b" not in shown
    assert "<" not in escaped(text) and '"' not in escaped(text)


def test_long_runs_are_drawn_by_one_stroke_a_pixel():
    t = np.linspace(0, 600, 50000)
    plot = time_plot("x", "ms", [Line("a", t, np.sin(t), points=True)], (0, 600))
    assert len(plot) < 60000


def test_missing_values_break_the_line():
    y = np.array([1.0, np.nan, 2.0, 3.0])
    plot = time_plot("x", "C", [Line("a", np.arange(4.0), y)], (0, 3), [("run", (0, 1))])
    path = re.search(r'd="([^"]+)" stroke', plot)[1]
    assert path.count("M") == 2 and path.count("L") == 1


@pytest.mark.parametrize("values", [[], [np.nan, np.nan]])
def test_plot_without_a_value_is_left_out(values):
    values = np.array(values)
    assert time_plot("x", "C", [Line("a", np.arange(float(len(values))), values)], (0, 1)) == ""


def test_histogram_of_equal_values_is_drawn():
    assert "5 frames" in histogram("x", "ms", np.full(5, 10.0))


@pytest.fixture
def listener():
    """A server that notes whether anybody connected."""
    server = socket.create_server(("127.0.0.1", 0))
    visits = []

    def serve():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            visits.append(connection.recv(1000))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/", visits
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(5)


def browse(page: Path, profile: Path) -> str:
    """Open a page in a headless browser; return what its console said."""
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--enable-logging=stderr", f"--user-data-dir={profile}", "--virtual-time-budget=3000",
        "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "</html>" in result.stdout
    return "\n".join(line for line in result.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_browser_opens_a_hostile_report_without_an_error_or_an_outside_request(
    report_of, made_result, tmp_path, listener
):
    url, visits = listener
    write_html([hostile_report(report_of, made_result, url)], tmp_path / "r.html")
    assert browse(tmp_path / "r.html", tmp_path / "profile") == ""
    assert visits == []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_browser_test_would_notice_a_request_and_a_script(tmp_path, listener):
    url, visits = listener
    (tmp_path / "r.html").write_text(f"<script>console.log(1)</script><img src={url}></html>")
    assert "CONSOLE" in browse(tmp_path / "r.html", tmp_path / "profile")
    assert visits
