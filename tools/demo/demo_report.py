"""The demo's report: one HTML file that needs nothing else, on phones and desktops."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import ClassVar

from fastseg_runtime.arrays.image_files import encode_rgb
from fastseg_runtime.arrays.metrics import Array
from fastseg_runtime.bundle.manifest import ClassInfo


@dataclass(frozen=True)
class SceneRow:
    """One artifact with its measurements."""

    HEADINGS: ClassVar = ("target", "precision", "MB", "mIoU", "drop", "agreement", "ms", "FPS")

    target: str
    precision: str
    megabytes: float
    miou: float  # fractions
    miou_drop: float
    agreement: float
    latency_ms: float
    fps: float

    def cells(self) -> list[str]:
        """Return the row as texts; fractions in percent."""
        return [
            self.target,
            self.precision,
            f"{self.megabytes:.2f}",
            f"{100 * self.miou:.1f} %",
            f"{100 * self.miou_drop:+.2f}",
            f"{100 * self.agreement:.2f} %",
            f"{self.latency_ms:.1f}",
            f"{self.fps:.0f}",
        ]


@dataclass(frozen=True)
class Strip:
    """Pictures of one scene: the image, the truth, the prediction; uint8 RGB (H, W, 3)."""

    name: str
    pictures: list[Array]


TEMPLATE = Path(__file__).with_name("report_template.html")


def write_report(
    path: Path,
    rows: Sequence[SceneRow],
    strips: Sequence[Strip],
    curves: Path,
    classes: Sequence[ClassInfo],
) -> None:
    """Write the report.

    Args:
        path: the file.
        rows: the table.
        strips: the scenes.
        curves: a PNG of the training.
        classes: for the legend.
    """
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in SceneRow.HEADINGS)
    body = "".join(f"<tr>{_cells(row)}</tr>" for row in rows)
    page = Template(TEMPLATE.read_text("utf-8")).substitute(
        table=f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>",
        curves=_data_url(curves.read_bytes()),
        legend="".join(map(_legend_entry, classes)),
        strips="\n".join(map(_strip, strips)),
    )
    path.write_text(page, "utf-8")


def _cells(row: SceneRow) -> str:
    return "".join(f"<td>{html.escape(cell)}</td>" for cell in row.cells())


def _legend_entry(entry: ClassInfo) -> str:
    color = "rgb({}, {}, {})".format(*entry.color)
    return f'<span><i style="background: {color}"></i>{html.escape(entry.name)}</span>'


def _strip(strip: Strip) -> str:
    kinds = ("image", "truth", "prediction")
    images = (
        f'<img src="{_data_url(encode_rgb(picture))}" alt="{html.escape(strip.name)}: {kind}">'
        for picture, kind in zip(strip.pictures, kinds, strict=True)
    )
    return f'<div class="strip">{"".join(images)}</div>'


def _data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
