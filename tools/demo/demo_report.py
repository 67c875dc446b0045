"""The demo's report: one HTML file that needs nothing else, on phones and desktops."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from fastseg_runtime.arrays.image_files import encode_rgb
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import ClassInfo

HEADINGS = ("target", "precision", "MB", "mIoU", "drop", "agreement", "ms", "FPS")
KINDS = ("image", "truth", "prediction")
TEMPLATE = Path(__file__).with_name("report_template.html")


def write_report(
    path: Path,
    rows: Sequence[Sequence[str]],
    strips: Mapping[str, Sequence[Array]],
    curves: Path,
    classes: Sequence[ClassInfo],
) -> None:
    """Write the report.

    Args:
        path: the file.
        rows: the table, below HEADINGS.
        strips: pictures of each scene by its name, one of each of KINDS; uint8 RGB (H, W, 3).
        curves: a PNG of the training.
        classes: for the legend.
    """
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in HEADINGS)
    cells = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    page = Template(TEMPLATE.read_text("utf-8")).substitute(
        table=f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>",
        curves=_data_url(curves.read_bytes()),
        legend="".join(map(_legend_entry, classes)),
        strips="\n".join(_strip(*strip) for strip in strips.items()),
    )
    path.write_text(page, "utf-8")


def _legend_entry(entry: ClassInfo) -> str:
    color = "rgb({}, {}, {})".format(*entry.color)
    return f'<span><i style="background: {color}"></i>{html.escape(entry.name)}</span>'


def _strip(name: str, pictures: Sequence[Array]) -> str:
    images = (
        f'<img src="{_data_url(encode_rgb(picture))}" alt="{html.escape(name)}: {kind}">'
        for picture, kind in zip(pictures, KINDS, strict=True)
    )
    return f'<div class="strip">{"".join(images)}</div>'


def _data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
