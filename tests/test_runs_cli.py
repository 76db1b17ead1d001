"""`tunelab runs | label | delete | restore | diff`."""

from __future__ import annotations

import json

import pytest

from tests.train.test_loop import config
from tunelab import Run, list_runs
from tunelab.cli import main
from tunelab.run.events import Failed
from tunelab.runs_cli import size_text


@pytest.fixture
def run() -> Run:
    return Run.create(config("starter").model_copy(update={"name": "mine"}))


def said(capsys, *command, code=0):
    assert main(list(command)) == code
    printed = capsys.readouterr()
    return printed.err if code else printed.out


def test_labels_are_given_shown_and_taken_away(run, capsys):
    shown = said(capsys, "label", "mine", "--name", "other", "--tag", "good", "two words", "--note", "first\nsecond")
    assert shown.splitlines()[1:] == ["    other #good #two words", "    first", "    second"]
    assert said(capsys, "runs").startswith(shown)
    (facts,) = map(json.loads, said(capsys, "runs", "--json").splitlines())
    assert (facts["name"], facts["tags"], facts["note"]) == ("other", ["good", "two words"], "first\nsecond")
    said(capsys, "label", "other", "--name", "", "--tag", "--note", "")
    assert Run.open("mine").labels.tags == ()
    assert "Give --name, --tag or --note" in said(capsys, "label", "mine", code=2)


def test_a_search_lists_what_fits_and_says_when_nothing_does(run, capsys):
    other = Run.create(config("starter"))
    other.append(Failed(message="no such file"))
    listed = said(capsys, "runs", "--search", "status:failed")
    assert other.id in listed
    assert "    no such file" in listed
    assert run.id not in listed
    assert said(capsys, "runs", "--search", "tag:none") == "None of 2 runs fits 'tag:none'.\n"
    assert said(capsys, "runs", "--search", "tag:none", "--json") == ""


def test_a_deleted_run_leaves_the_list_and_comes_back(run, capsys):
    assert f"tunelab restore {run.id}" in said(capsys, "delete", "mine")
    assert said(capsys, "runs").startswith("No runs in")
    assert f"{run.id}  mine  " in said(capsys, "runs", "--deleted")
    assert f"tunelab restore {run.id}" in said(capsys, "stop", run.id, code=2)
    assert run.id in said(capsys, "restore", "mine")
    assert [one.id for one in list_runs()] == [run.id]
    assert said(capsys, "runs", "--deleted") == "Nothing deleted.\n"


def test_what_was_deleted_is_removed_when_it_is_old_enough(run, capsys):
    said(capsys, "delete", run.id)
    assert said(capsys, "delete", "--empty", "1") == "Removed for good: 0 bytes.\n"
    assert run.id in said(capsys, "runs", "--deleted")
    assert "KB." in said(capsys, "delete", "--empty", "0")
    assert f"No deleted run is called '{run.id}'" in said(capsys, "restore", run.id, code=2)
    for wrong in ((), (run.id, "--empty", "1"), ("--empty", "-1"), ("--empty", "nan")):
        assert said(capsys, "delete", *wrong, code=2)


def test_runs_are_compared_setting_by_setting(run, capsys):
    second, third = (Run.create(config("starter", steps=steps)) for steps in (9, 6))
    lines = [line.split() for line in said(capsys, "diff", run.id, second.id, third.id).splitlines()]
    assert lines[0] == [run.id, second.id, third.id]
    assert ["steps", "6", "9", "6"] in lines
    assert ["name", "mine", "none", "none"] in lines
    facts = [json.loads(line) for line in said(capsys, "diff", run.id, second.id, "--json").splitlines()]
    assert {"field": "steps", run.id: "6", second.id: "9"} in facts
    assert said(capsys, "diff", third.id, third.id) == "They were made with the same settings.\n"
    assert "Give two or more" in said(capsys, "diff", run.id, code=2)


def test_nothing_hostile_reaches_the_terminal(capsys):
    run = Run.create(config("starter"))
    (run.path / "labels.json").write_text(json.dumps({"name": "\x1b[2Jx", "tags": ["\x07"], "note": "\x9b31m"}))
    printed = said(capsys, "runs") + said(capsys, "delete", run.id) + said(capsys, "runs", "--deleted")
    assert all(letter.isprintable() or letter == "\n" for letter in printed)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 KB"), (2_340_000, "2.3 MB"), (5e9, "5.0 GB")]
)
def test_sizes_are_told_in_the_unit_people_would_choose(count, text):
    assert size_text(count) == text
