"""What --view costs a video: its rate without a viewer, with one, and with one that stalls.

    python tools/runtime_figures/view_speed.py nano-camvid.fastseg drive.mp4 --rounds 5

Rounds alternate; each figure is the median of the ratios to the same round without a viewer.
"""

import argparse
import json
import socket
import statistics
import tempfile
import threading
from pathlib import Path

from fastseg_runtime import RealtimeSegmentation
from fastseg_runtime.frames.view import View


def connect(view: View) -> socket.socket:
    """Return a connection that has asked for the pictures."""
    host, port = "127.0.0.1", int(view.url.split(":")[2].split("/")[0])
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # full after a picture
    connection.connect((host, port))
    request = f"GET /{view.token}/stream HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n"
    connection.sendall(request.encode())
    return connection


def look(connection: socket.socket, seen: list[int]) -> None:
    """Take pictures until the end, and count them."""
    while content := connection.recv(1 << 16):
        seen[0] += content.count(b"--frame")


def one_round(session: RealtimeSegmentation, video: Path, folder: Path) -> dict[str, float]:
    """Return frames per second in each case, and pictures per second that the viewer got."""
    fps, target = {}, folder / "out.mkv"
    fps["without"] = session.infer_video(video, target)
    for case in ("one viewer", "a stalled viewer"):
        with View(session, "127.0.0.1", folder) as view:
            connection, seen = connect(view), [0]
            if case == "one viewer":
                threading.Thread(target=look, args=(connection, seen), daemon=True).start()
            frames = [0]

            def show(frame: object, view: View = view, frames: list[int] = frames) -> None:
                frames[0] += 1
                view.show(frame)  # type: ignore[arg-type]

            fps[case] = session.infer_video(video, target, on_frame=show)
            if case == "one viewer":
                fps["pictures a second"] = seen[0] * fps[case] / frames[0]
        connection.close()
    return fps


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("video", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        RealtimeSegmentation(options.bundle, threads=1) as session,
    ):
        rounds = [one_round(session, options.video, Path(folder)) for _ in range(options.rounds)]
    report = {
        f"{case} / without": round(statistics.median(r[case] / r["without"] for r in rounds), 3)
        for case in ("one viewer", "a stalled viewer")
    }
    for name in ("without", "pictures a second"):
        report[name] = round(statistics.median(r[name] for r in rounds), 1)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
