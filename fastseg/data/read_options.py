"""What is said of how to read a data set, at the end of its string: KIND:PATH?split-by=folder&...

So it goes wherever the data go: into a checkpoint's header, to the export that verifies on them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from urllib.parse import quote, unquote

from fastseg.data.dataset import DataError, MissingSplitError
from fastseg.data.file_dataset import AnnotationReader, FileDataset, Problem, Sieve, as_problem
from fastseg.data.image_file import Range
from fastseg.data.splits import choose_names, look_like_frames

MOST_BROKEN = 0.05
_SHOWN = 5  # skipped files named in an error


@dataclass(frozen=True)
class ReadOptions:
    """How to read a data set; "" and 0 for what is not said.

    Attributes:
        image_range: "LOW:HIGH", the stored values of pictures that become black and white.
        split_by: see splits.choose_names.
        skip_broken: share of broken pictures, and of broken annotations, that may be left out.
    """

    image_range: str = ""
    split_by: str = ""
    skip_broken: float = 0

    def range(self, spec: str) -> Range | None:
        """Return image_range as two numbers.

        Raises:
            DataError: it is not of that form.
        """
        if not self.image_range:
            return None
        low, colon, high = self.image_range.partition(":")
        try:
            found = (float(low), float(high))
        except ValueError:
            found = (0.0, 0.0)
        if not (colon and -1e38 < found[0] < found[1] < 1e38):
            raise DataError(
                f"{spec}: cannot read the image range {self.image_range!r}; write LOW:HIGH, the "
                "stored values that are black and white, such as 0:4095"
            )
        return found


def with_options(spec: str, options: ReadOptions) -> str:
    """Return a data set's string that says the options too, in place of what it said of them."""
    bare, said = parse_spec(spec)
    given = {f.name: getattr(options, f.name) for f in fields(options) if getattr(options, f.name)}
    values = vars(replace(said, **given)).items()
    words = [
        f"{name.replace('_', '-')}={quote(str(v), safe='/:^[]()+*')}" for name, v in values if v
    ]
    return "?".join([bare, "&".join(words)]) if words else bare


def parse_spec(spec: str) -> tuple[str, ReadOptions]:
    """Return a data set's string without its options, and these.

    Raises:
        DataError: the share to skip is no share.
    """
    bare, mark, query = spec.rpartition("?")
    words = [word.partition("=") for word in query.split("&")]
    known = {_word(field.name): field.name for field in fields(ReadOptions)}
    if not mark or any(name not in known for name, _, _ in words):  # a "?" of the path
        return spec, ReadOptions()
    said = {known[name]: unquote(value) for name, _, value in words}
    try:
        share = float(said.pop("skip_broken", "0"))
    except ValueError:
        share = -1
    if not 0 <= share <= 1:
        raise DataError(f"{spec}: skip-broken is a share of at most 1, such as {MOST_BROKEN}")
    return bare, ReadOptions(**said, skip_broken=share)


def _word(field_name: str) -> str:
    return field_name.replace("_", "-")


def apply(options: ReadOptions, dataset: FileDataset, spec: str) -> FileDataset:
    """Return a data set as the options have it.

    Raises:
        DataError: they do not fit the data, or more is broken than may be.
    """
    dataset = replace(dataset, image_range=options.range(spec))
    if dataset.unsplit:
        dataset = _take_split(dataset, options.split_by, spec)
    elif options.split_by:
        raise DataError(f"{spec}: has splits of its own; leave out --split-by")
    return _without_broken(dataset, options.skip_broken) if options.skip_broken else dataset


def _take_split(dataset: FileDataset, by: str, spec: str) -> FileDataset:
    names = [pair.name for pair in dataset.pairs]
    chosen = choose_names(names, dataset.split, by, spec)
    note = f"no splits in the data: each {'sequence' if by else 'picture'} goes by its name"
    if not by and look_like_frames(names):
        note += (
            ". The names are numbered like frames of a video: neighbours look alike, so say with "
            "--split-by which are one sequence, or make folders train and val"
        )
    if names and not chosen:
        raise MissingSplitError(
            f"{spec}: {len(names)} pictures without splits, too few for a split {dataset.split!r}"
        )
    pairs = tuple(pair for pair in dataset.pairs if pair.name in chosen)
    return replace(dataset, pairs=pairs, notes=(*dataset.notes, note))


def _without_broken(dataset: FileDataset, most: float) -> FileDataset:
    """Return the data set without what cannot be read; each file is read for that."""
    reader = dataset.read_label
    sieve = reader.sieve if isinstance(reader, AnnotationReader) else Sieve()
    sieve.drops = True
    kept, lost = [], list(dataset.problems)
    for index, pair in enumerate(dataset.pairs):
        try:
            dataset[index]
        except DataError as error:
            lost.append(as_problem(error))
        else:
            kept.append(pair)
    _refuse_many(dataset.split, "pictures", lost, len(kept) + len(lost), most)
    dropped = list(sieve.dropped)
    _refuse_many(dataset.split, "annotations", dropped, sieve.seen, most)
    return replace(dataset, pairs=tuple(kept), problems=(), skipped=(*lost, *dropped))


def _refuse_many(split: str, what: str, broken: list[Problem], total: int, most: float) -> None:
    if len(broken) <= max(1, most * total):  # of a few one may always be
        return
    shown = "".join(f"\n  {problem.file}: {problem.message}" for problem in broken[:_SHOWN])
    raise DataError(
        f"{split}: {len(broken)} of {total} {what} are broken, more than {most:.0%}; mend them, or "
        f"let more go with --most-broken. The first are{shown}"
    )
