"""Searching runs: every word counts, in every place or in the one that is named."""

from __future__ import annotations

import time

import pytest

from tests.train.test_loop import config
from tunelab import DataSpec, LoRA, ModelSpec, Run, RunConfig, Stage, list_runs
from tunelab.run.events import Failed
from tunelab.run.search import search_runs


@pytest.fixture
def runs() -> dict[str, Run]:
    def made(name, model, source):
        technique, stages = LoRA(), (Stage(data=DataSpec(source=source)),)
        return Run.create(RunConfig(model=ModelSpec(repo_id=model), technique=technique, stages=stages, name=name))

    found = {
        "docs": made("Docs", "starter", "python-docs"),
        "bank": made("bank", "org/Small-Model", "banking77.csv"),
        "mail": made(None, "/home/somebody/models/big", "support-tickets"),
    }
    found["docs"].label(tags=["good", "two words"], note="lower rate than before")
    found["bank"].label(tags=["v10"])
    found["mail"].append(Failed(message="no memory"))
    return found


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", {"docs", "bank", "mail"}),
        ("   ", {"docs", "bank", "mail"}),
        ("DOCS", {"docs"}),
        ("lora", {"docs", "bank", "mail"}),
        ("banking", {"bank"}),
        ("lower RATE", {"docs"}),
        ("lower banking", set()),
        ("tag:good", {"docs"}),
        ("tag:v1", set()),
        ('tag:"Two words"', {"docs"}),
        ('"rate than"', {"docs"}),
        ("status:failed", {"mail"}),
        ("status:fail", set()),
        ("model:small", {"bank"}),
        ("model:docs", set()),
        ("somebody", set()),  # of a folder's path
        ("data:tickets status:failed method:lora", {"mail"}),
        ("https://x", set()),
        ("banking tag:", {"bank"}),  # is still being typed
        ("[.*(", set()),
    ],
)
def test_a_search_finds_the_runs_that_fit_every_word(runs, text, names):
    found = search_runs(list_runs(), text)
    assert {run.id for run in found} == {runs[name].id for name in names}


def test_the_order_stays_and_what_cannot_be_read_is_found_by_its_label(runs):
    every = list_runs()
    assert [run.id for run in search_runs(every[::-1], "lora")] == [run.id for run in every[::-1]]
    broken = Run.create(config("starter"))
    broken.label(name="old one")
    (broken.path / "config.json").write_text("{")
    assert [run.id for run in search_runs(list_runs(), 'name:"old one" status:unreadable')] == [broken.id]


def test_runs_of_one_second_stand_in_the_order_they_were_made():
    made = []
    for name in "zamzamzamq":
        made.append(Run.create(config("starter").model_copy(update={"name": name})))
        time.sleep(0.02)  # the clock of a file system has steps
    assert [run.id for run in list_runs()] == [run.id for run in reversed(made)]
    assert Run.open("latest").id == made[-1].id
