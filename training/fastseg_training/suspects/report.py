"""fastseg-train --suspects: rank labels, choose what to label next, and write the sheet."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastseg_runtime.arrays.shared_files import write_file
from fastseg_runtime.arrays.terminal import TextTable, printable

from fastseg import Network
from fastseg.data import Dataset, Survey, open_dataset
from fastseg.data.loaders import DRAWN
from fastseg.data.read_options import parse_spec
from fastseg.progress import show_progress
from fastseg_training.config import UnlabelledFrames
from fastseg_training.evaluate import check_classes
from fastseg_training.lessons import Frames, open_frames
from fastseg_training.suspects.page import suspects_page
from fastseg_training.suspects.ranking import (
    Candidate,
    Suspect,
    Thumbs,
    choose_next,
    draw_suspect,
    find_suspects,
)

SHARE, LEAST, MOST = 0.05, 12, 100  # of the pictures are on the sheet; some 40 kB each
_LISTED = 12  # rows on the terminal


@dataclass(frozen=True)
class Suspects:
    """What was found, all of it.

    Attributes:
        by_disagreement, by_unlabelled_share: the labelled pictures, the first to look at first.
        to_label: pictures without labels, in the order in which to label.
        notes: what the user should know.
    """

    by_disagreement: Sequence[Suspect]
    by_unlabelled_share: Sequence[Suspect]
    to_label: Sequence[Candidate]
    notes: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """Return all lists, whole."""
        return {
            "disagreement": _ranked(self.by_disagreement),
            "unlabelled_share": _ranked(self.by_unlabelled_share),
            "label_next": _ranked(self.to_label),
            "notes": list(self.notes),
        }

    def tables(self) -> list[TextTable]:
        """Return the first rows of each list that is not empty, for the terminal."""
        found = []
        if self.by_disagreement:
            rows = [
                (s.name, f"{s.disagreement:.3f}", ", ".join(f"{a} / {b}" for a, b, _ in s.pairs))
                for s in self.by_disagreement[:_LISTED]
            ]
            headings = ("picture", "disagreement", "label / network")
            found.append(TextTable(headings, rows, "labels to look at again", right=(1,)))
            shares = [
                (s.name, f"{s.unlabelled_share:.1%}") for s in self.by_unlabelled_share[:_LISTED]
            ]
            found.append(TextTable(("picture", "unlabelled"), shares, "least labelled", right=(1,)))
        if self.to_label:
            rows = [
                (c.name, f"{c.uncertainty:.3f}", f"{c.novelty:.3f}")
                for c in self.to_label[:_LISTED]
            ]
            headings = ("picture", "uncertainty", "novelty")
            found.append(TextTable(headings, rows, "to label next", right=(1, 2)))
        return found


def report_suspects(
    network: Network, data: str, split: str, unlabelled: str, sheet: Path
) -> Suspects:
    """Rank what there is and write the sheet.

    Args:
        network: whose word it is.
        data: the labelled pictures, "" for none; what it says of a range is for all pictures.
        split: of them.
        unlabelled: a folder or a video of pictures without labels, "" for none.
        sheet: the HTML file to write.

    Raises:
        ConfigError: the data has other classes, or there are no pictures.
        DataError: the data cannot be opened.
    """
    sheet.parent.mkdir(parents=True, exist_ok=True)  # what cannot be made is said before the work
    bare, options = parse_spec(data)
    dataset = open_dataset(data, split) if bare else None
    frames = None
    if unlabelled:
        frames = open_frames(unlabelled, UnlabelledFrames.most, options.range(data))
    found = _rank(network, dataset, frames)
    lists: list[tuple[str, list[tuple[Suspect | Candidate, Thumbs]]]] = []
    if dataset is not None:
        total = len(found.by_disagreement)
        for heading, ranked in (
            (f"Labels that the network doubts most, of {total}", found.by_disagreement),
            ("Pictures with the largest share of unlabelled pixels", found.by_unlabelled_share),
        ):
            first = ranked[: min(max(LEAST, round(SHARE * total)), MOST)]
            lists.append((heading, [(s, draw_suspect(network, dataset[s.index])) for s in first]))
    if unlabelled:
        lists.append(("To label next", [(c, c.thumbs) for c in found.to_label[:MOST]]))
    title = (
        f"{data} {split}, as {network.name} sees it" if bare else f"{network.name}: {unlabelled}"
    )
    page = suspects_page(title, found.notes, network.info.classes, lists)
    write_file(sheet, page.encode("utf-8", "replace"))  # names of files may be in another code
    return found


def _rank(network: Network, dataset: Dataset | None, frames: Frames | None) -> Suspects:
    suspects: list[Suspect] = []
    notes = []
    if dataset is not None:
        check_classes(network, dataset.name, dataset.classes)
        splits = {dataset.split, "trainval" if dataset.split in ("train", "val") else ""}
        kind, _, learnt = network.info.trained_on.partition(" ")
        if kind == dataset.name and learnt.partition(" without ")[0] in splits:
            # Of a kind, such as "folder", there are many data sets: the header names none.
            notes.append(
                f"{network.name} was trained on {kind} {learnt}; if that is this split, what it "
                "learnt of wrong labels it does not doubt; a network trained on other pictures "
                "sees more"
            )
        survey = Survey(dataset)
        found = find_suspects(network, survey)
        suspects = list(show_progress(found, "looking at labels", len(dataset)))
        notes += survey.remarks(fit=network.info.fit) if dataset.name not in DRAWN else ()
    candidates: list[Candidate] = []
    if frames is not None:
        shown = show_progress(frames, "looking at pictures", len(frames))
        candidates = choose_next(network, shown, suspects, MOST)
    for note in notes:
        print(printable(note), file=sys.stderr)
    return Suspects(
        sorted(suspects, key=lambda one: -one.disagreement),
        sorted(suspects, key=lambda one: -one.unlabelled_share),
        candidates,
        notes,
    )


def _ranked(entries: Sequence[Suspect | Candidate]) -> list[dict[str, Any]]:
    return [entry.as_json(rank) for rank, entry in enumerate(entries, start=1)]
