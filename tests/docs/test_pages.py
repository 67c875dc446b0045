"""README, CONTRIBUTING and docs: links lead somewhere, paths and options exist, README is short."""

import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from remote_bench.analysis.evidence import not_run

from fastseg import pretrained
from fastseg.data import LOADERS
from fastseg.data.loaders import DRAWN
from tests.test_layout import ROOMS

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
README_WORDS = 1200
PICTURE_BYTES = 150_000
PROGRAMS = {
    program: place.split(":")
    for name in ("pyproject.toml", "runtime/pyproject.toml")
    for program, place in tomllib.loads((ROOT / name).read_text())["project"]["scripts"].items()
}
SUBCOMMANDS = {"remote_bench": ("bench", "doctor", "compare", "evidence")}
FOLDERS = "docs|exporters|fastseg|runtime|targets|tests|tools|training"


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


each_page = pytest.mark.parametrize("page", PAGES, ids=page_id)


def anchors(page: Path) -> set[str]:
    """What GitHub makes of headings: small letters, spaces to hyphens, punctuation dropped."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@each_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name) if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@each_page
def test_paths_that_are_named_exist(page: Path) -> None:
    for name in re.findall(rf"(?<![\w/])((?:{FOLDERS})/[\w./*-]*[\w/])", page.read_text("utf-8")):
        made = "NAME" in name or "SPLIT" in name  # by the reader
        assert made or any(any(folder.glob(name)) for folder in (ROOT, ROOT / "runtime")), name


@cache
def options(program: str) -> set[str]:
    """The options that a command's help lists, those of its subcommands too."""
    calls = [[], *([word] for word in SUBCOMMANDS.get(program, ()))]
    module, function = PROGRAMS[program]
    code = f"from {module} import {function}; {function}()"
    helps = [
        subprocess.run(
            [sys.executable, "-c", code, *call, "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        for call in calls
    ]
    return set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", "".join(done.stdout for done in helps)))


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_options_of_commands_on_pages_exist(program: str) -> None:
    for page in PAGES:
        text = page.read_text("utf-8").replace("\\\n", " ")
        for line in re.findall(rf"^    {program} (.+)$", text, re.MULTILINE):
            words = shlex.split(line.replace("\\", "/"), comments=True)
            used = {word for word in words if re.match(r"--?[a-z]", word)}
            assert used <= options(program), (page.name, line)


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").split()) < README_WORDS


def test_pictures_on_pages_are_small() -> None:
    for page in PAGES:
        for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text("utf-8")):
            assert 0 < (page.parent / name).stat().st_size < PICTURE_BYTES, name


def test_readme_says_what_was_not_run_as_the_table_that_evidence_closes_has_it() -> None:
    part = (ROOT / "README.md").read_text("utf-8").partition("## What was not run\n")[2]
    part = part.partition("\n## ")[0]
    bullets = [" ".join(bullet.split()) for bullet in part.split("\n- ")[1:]]
    assert bullets == [f"**{row.title}** {' '.join(row.text.split())}" for row in not_run()]
    assert "`remote_bench evidence HOST`" in part


def test_each_platform_page_is_of_a_row_of_not_run_and_names_what_closes_it() -> None:
    folder = ROOT / "docs/platforms"
    rows = [row for row in not_run() if row.pages]
    assert {page for row in rows for page in row.pages} == {p.name for p in folder.glob("*.md")}
    for row in rows:
        for page in row.pages:
            assert row.by_hand or "remote_bench evidence" in (folder / page).read_text("utf-8")


def test_the_first_table_of_the_page_on_data_has_each_kind() -> None:
    table = (ROOT / "docs/data.md").read_text("utf-8").partition("|---|---|\n")[2]
    strings = [cells(line)[0] for line in table.partition("\n\n")[0].splitlines()]
    named = [name for string in strings for name in re.findall(r"`([^`]+)`", string)]
    of_kinds = [kind if kind in DRAWN else f"{kind}:PATH" for kind in LOADERS]
    assert sorted(named) == sorted([*of_kinds, "package.module:factory"])


def test_the_rooms_on_the_page_of_the_architecture_are_those_of_the_tree() -> None:
    page = (ROOT / "docs/architecture.md").read_text("utf-8").partition("## Rooms")[2]
    found = {}
    for part in page.partition("**The others")[0].split("\n**`")[1:]:
        package, _, rest = part.partition("`")
        first_cells = re.findall(r"^\| (`.+?) \|", rest, re.MULTILINE)
        found[package] = set(re.findall(r"`(\w+)`", " ".join(first_cells)))
    assert found == {package: set(rooms) for package, rooms in ROOMS.items()}


def test_readme_has_a_row_for_each_network_that_ships_as_its_card_has() -> None:
    readme, cards = ((ROOT / name).read_text("utf-8") for name in ("README.md", "docs/models.md"))
    rows, of_cards = (
        {row[0].partition(",")[0]: row for row in map(cells, page.splitlines())}
        for page in (readme, cards)
    )
    names = re.findall(r"^## ([\w-]+)$", cards, re.MULTILINE)
    assert sorted(names) == pretrained.names()
    for name in names:
        row, card = rows[f"`{name}`"], of_cards[f"`{name}`"]
        assert (row[0], row[1], row[2], row[4]) == (card[0], card[1], card[4], card[8])
        assert row[3].startswith(card[5])


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]
