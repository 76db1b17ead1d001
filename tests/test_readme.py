"""README, guide and figures tell the truth: commands and example run as they stand, files and headings exist."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.conftest import REPOSITORY
from tunelab.cli import main

README, GUIDE, FIGURES, TEACHING = (
    (REPOSITORY / name).read_text(encoding="utf-8")
    for name in ("README.md", "docs/guide.md", "benchmarks/FIGURES.md", "TEACHING.md")
)
PAGES = {"README.md": README, "docs/guide.md": GUIDE, "benchmarks/FIGURES.md": FIGURES, "TEACHING.md": TEACHING}
TEXT = README + GUIDE  # the guide goes on with what the README's commands have made
SETUP = ("make ", "python -m venv", "pip ", ".venv", "python -m playground")
# What is smaller when commands and example are tested; each stands in README and guide exactly once.
SMALLER = {
    "sh": {
        "--steps 60": "--steps 2 --eval-rows 8",
        "dedent` do in Python?'": "dedent` do in Python?' --max-new-tokens 8",
        "--rows 60 --max-new-tokens 48": "--rows 4 --max-new-tokens 4 --questions 8 --instructions 2",
        "lora,ia3 --budget-steps 16 --rows 40 --max-new-tokens 48": "ia3 --budget-steps 2 --rows 4 --max-new-tokens 4 "
        "--instructions 2",
    },
    "python": {
        "steps=60": "steps=2, eval_rows=8",
        'dedent` do in Python?"': 'dedent` do in Python?", max_new_tokens=8',
    },
}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def smaller(language):
    """The blocks of a language, with the sizes of SMALLER."""
    text = "\n".join(blocks(language))
    for own, less in SMALLER[language].items():
        assert text.count(own) == 1, own
        text = text.replace(own, less)
    return text


def test_every_command_but_the_set_up_runs(starter, tmp_path, monkeypatch, capsys):
    commands = [line for line in smaller("sh").splitlines() if line and not line.startswith(SETUP)]
    assert len(commands) >= 5
    monkeypatch.chdir(tmp_path)
    for command in commands:
        program, *arguments = shlex.split(command, comments=True)
        assert program == "tunelab"
        try:
            code = main(arguments)
        except SystemExit as end:  # of --help
            code = end.code
        assert code == 0, f"{command}\n{capsys.readouterr()}"


def test_the_example_runs(starter, tmp_path, capsys):
    (example,) = blocks("python")
    assert len([line for line in example.splitlines() if line]) <= 11
    exec(compile(smaller("python"), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "base →" in printed
    assert printed.count("→") == 2


def test_configurations_are_valid(tmp_path):
    from tunelab import RunConfig

    for block in blocks("yaml"):
        (tmp_path / "run.yaml").write_text(block)
        assert RunConfig.from_file(tmp_path / "run.yaml").stages


def test_nothing_is_left_to_be_filled_in():
    assert not [name for name, text in PAGES.items() if "@@" in text]


def test_the_tree_names_files_that_exist():
    (tree,) = blocks("text")
    for name in re.findall(r"[\w/]+\.py|[\w/]+/(?=\s)", tree):
        found = [folder for folder in ("", "lib/tunelab", "playground") if (REPOSITORY / folder / name).exists()]
        assert found, name


def heading_ids(text):
    """The parts of a page that a link can name, as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


LINKS = [(page, link) for page, text in PAGES.items() for link in re.findall(r"\]\((?!http)([^)]+)\)", text)]


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_links_lead_somewhere(page, link):
    target, _, part = link.partition("#")
    found = (REPOSITORY / page).parent / target if target else REPOSITORY / page
    assert found.exists()
    if part:
        assert part in heading_ids(found.read_text(encoding="utf-8"))


def test_an_interval_stands_with_the_difference_it_is_of():
    headings = [
        cell.strip() for line in FIGURES.splitlines() if line.startswith("| technique") for cell in line.split("|")
    ]
    with_interval = {name for name in headings if "[95 %]" in name}
    assert with_interval == {"gain [95 %]"}
    assert {"chrF", "exact match, %", "forgetting"} <= set(headings)
    for value, low, high in re.findall(r"\| ([+−]?[\d.]+) \[([+−]?[\d.]+), ([+−]?[\d.]+)\] \|", FIGURES):
        first, middle, last = (float(text.replace("−", "-")) for text in (low, value, high))
        assert first <= middle <= last
