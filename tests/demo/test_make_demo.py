"""The demo, run short, and its page opened in a real browser."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium")
BROWSER_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--enable-logging=stderr",
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, str(ROOT / "tools/demo/make_demo.py"), "--minutes", "0.3"]
    done = subprocess.run(
        [*command, "--folder", str(folder)], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (folder / "stdout.txt").write_text(done.stdout)
    return folder


def test_the_table_has_every_artifact_and_says_where_the_report_is(demo: Path) -> None:
    text = (demo / "stdout.txt").read_text()
    assert all(target in text for target in ("cpu-fp32", "cpu-int8", "cpu-int8-weights"))
    assert "report.html" in text


def test_the_report_is_one_file_that_refers_to_nothing_outside(demo: Path) -> None:
    page = (demo / "report.html").read_text("utf-8")
    assert page.count('src="data:image/png;base64,') == 1 + 4 * 3
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|https?://""", page)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [360, 1280])
def test_a_browser_shows_it_without_complaint_or_sideways_scrolling(
    demo: Path, tmp_path: Path, width: int
) -> None:
    probe = tmp_path / "probe.html"
    page = (demo / "report.html").read_text("utf-8")
    frame = page.replace('"', "&quot;")
    probe.write_text(
        f'<iframe id="f" width="{width}" height="2000" srcdoc="{frame}"></iframe>'
        "<script>onload = () => { const d = document.getElementById('f').contentDocument;"
        "document.title = [d.documentElement.scrollWidth, d.images.length,"
        "[...d.images].every(i => i.naturalWidth > 0)].join(' ') }</script>",
        "utf-8",
    )
    command = [str(CHROMIUM), *BROWSER_OPTIONS, f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, "--virtual-time-budget=5000", "--dump-dom", probe.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    title = re.search(r"<title>(\d+) (\d+) (\w+)</title>", done.stdout)
    assert title is not None, done.stderr[-1000:]
    assert int(title[1]) <= width
    assert (title[2], title[3]) == ("13", "true")
    assert "CONSOLE" not in done.stderr
