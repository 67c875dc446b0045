"""Which of a teacher's classes make up each class of the data: a TOML file.

    teacher = ["road", "sidewalk", "building", "wall"]   # in the order of its outputs
    [classes]                                            # of the data: whose probabilities add up
    Road = ["road"]
    Building = ["building", "wall"]

Shape letters: C classes of the teacher, K of the data.
"""

import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from fastseg_runtime.arrays.strict_tables import from_table

from fastseg.data.dataset import MAX_CLASSES
from fastseg_training.config import ConfigError

SHIPPED = Path(__file__).parent / "maps"
MAX_BYTES = 100_000  # 255 classes of long names take a tenth of it


@dataclass(frozen=True)
class ClassMap:
    """Where each class of a teacher goes.

    Attributes:
        teacher: names of the teacher's C classes, in the order of its outputs.
        classes: names of the data's K classes.
        target_C: for each class of the teacher the index of the data's, -1 for none.
    """

    teacher: tuple[str, ...]
    classes: tuple[str, ...]
    target_C: tuple[int, ...]

    @property
    def taught(self) -> tuple[int, ...]:
        """The indices of the data's classes of which the teacher knows something."""
        return tuple(sorted(set(self.target_C) - {-1}))

    @property
    def partly_taught(self) -> tuple[int, ...]:
        """The same, empty if the teacher knows all of them."""
        return () if len(self.taught) == len(self.classes) else self.taught

    def gaps(self) -> list[str]:
        """Return what the map leaves out, a sentence each."""
        known = set(self.taught)
        untaught = [name for index, name in enumerate(self.classes) if index not in known]
        unused = [name for name, to in zip(self.teacher, self.target_C, strict=True) if to == -1]
        told = []
        if untaught:
            told.append(f"learnt from labels alone, the teacher does not know: {listed(untaught)}")
        if unused:
            told.append(f"pixels that it takes for these are not taught: {listed(unused)}")
        return told


def same_classes(names: Sequence[str]) -> ClassMap:
    """Return the map of a teacher that knows the data's own classes."""
    return ClassMap(tuple(names), tuple(names), tuple(range(len(names))))


def read_class_map(spec: str, names: Sequence[str]) -> ClassMap:
    """Read a map from a file, or one that ships by its name.

    Args:
        spec: a path, or such as "cityscapes-to-camvid", with or without ".toml".
        names: of the data's classes.

    Raises:
        ConfigError: there is none, or it does not fit itself or the data.
    """
    path = _find(spec)
    try:
        table = from_table(_MapFile, tomllib.loads(path.read_text("utf-8")), "")
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the teacher map {spec}: {error}") from error
    if unknown := sorted(set(table.classes) - set(names)):
        raise ConfigError(
            f"{spec} maps to {listed(unknown)}; the classes of the data are {listed(names)}"
        )
    targets = {source: name for name, sources in table.classes.items() for source in sources}
    if not targets:
        raise ConfigError(f"{spec} maps no class of the teacher to one of the data")
    target_C = (names.index(targets[name]) if name in targets else -1 for name in table.teacher)
    return ClassMap(table.teacher, tuple(names), tuple(target_C))


@dataclass(frozen=True)
class _MapFile:
    teacher: tuple[str, ...]
    classes: dict[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        for place, names in (("teacher", self.teacher), *self.classes.items()):
            if "" in names:
                raise ValueError(f"{place} has a name without letters")
            if twice := [name for name, count in Counter(names).items() if count > 1]:
                raise ValueError(f"{place} names {listed(twice)} more than once")
            if unknown := sorted(set(names) - set(self.teacher)):
                raise ValueError(f"{place} names {listed(unknown)}, no class of the teacher")
        if (count := len(self.teacher)) > MAX_CLASSES:
            raise ValueError(f"teacher names {count} classes; at most {MAX_CLASSES} are possible")
        for (one, its), (other, others) in combinations(self.classes.items(), 2):
            if both := sorted(set(its) & set(others)):
                raise ValueError(f"{both[0]!r} goes to {one} and to {other}; choose one")


def _find(spec: str) -> Path:
    path = Path(spec)
    if not path.is_file() and path.name == spec:
        path = SHIPPED / f"{spec.removesuffix('.toml')}.toml"
    if not path.is_file():
        shipped = listed(sorted(file.stem for file in SHIPPED.glob("*.toml")))
        raise ConfigError(f"no teacher map {spec}; write one, or take one that ships: {shipped}")
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{spec} is larger than {MAX_BYTES} bytes; is it a teacher map?")
    return path


def listed(names: Sequence[str]) -> str:
    """Return names as text."""
    return ", ".join(names)
