"""The README tells the truth: its commands and its example run as they stand, its files exist."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.conftest import REPOSITORY
from tunelab.cli import main

TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")
SETUP = ("make ", "python -m venv", "pip ", ".venv", "python -m playground")
# What is smaller when commands and example are tested; each stands in the README exactly once.
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


def test_the_tree_names_files_that_exist():
    (tree,) = blocks("text")
    for name in re.findall(r"[\w/]+\.py|[\w/]+/(?=\s)", tree):
        found = [folder for folder in ("", "lib/tunelab", "playground") if (REPOSITORY / folder / name).exists()]
        assert found, name


@pytest.mark.parametrize("target", re.findall(r"\]\((?!http)([^)]+)\)", TEXT))
def test_links_lead_somewhere(target):
    assert (REPOSITORY / target).exists()


def test_an_interval_stands_with_the_difference_it_is_of():
    headings = [
        cell.strip() for line in TEXT.splitlines() if line.startswith("| technique") for cell in line.split("|")
    ]
    with_interval = {name for name in headings if "[95 %]" in name}
    assert with_interval == {"gain [95 %]"}
    assert {"chrF", "exact match, %", "forgetting"} <= set(headings)
    for value, low, high in re.findall(r"\| ([+−]?[\d.]+) \[([+−]?[\d.]+), ([+−]?[\d.]+)\] \|", TEXT):
        first, middle, last = (float(text.replace("−", "-")) for text in (low, value, high))
        assert first <= middle <= last
