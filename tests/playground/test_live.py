"""What a page that looks at a run is sent: what has changed, and nothing else."""

from __future__ import annotations

import pytest

from playground import live
from playground.errors import UNEXPECTED
from playground.jobs import Jobs
from playground.live import Looks
from tests.train.test_loop import config
from tunelab import Run, UserError
from tunelab.run.events import StepDone

EVERY = [*live.OF_RUN, *live.OF_ALL]


@pytest.fixture
def run(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(live, "LOOK_SECONDS", -1.0)
    return Run.create(config(tiny), tmp_path)


def step(number: int) -> StepDone:
    figures = {"scored_tokens": 50, "tokens": 100, "seconds": 0.5, "gradient_norm": 1.0, "learning_rate": 1e-4}
    return StepDone(step=number, stage=0, loss=2.0 / number, **figures)


def test_nothing_is_sent_while_nothing_is_new_and_then_only_what_changed(run):
    rendered = []
    parts = {
        "steps": lambda jobs, run: rendered.append("steps") or str(len(run.progress().steps)),
        "name": lambda jobs, run: rendered.append("name") or run.name,
        "hidden": lambda jobs, run: rendered.append("hidden") or "never asked for",
    }
    looks = Looks(Jobs(run.root), parts)
    run.beat()
    first = looks.look(run.id, "", {"steps": "", "name": ""})
    assert {name: html for name, (_hash, html) in first["parts"].items()} == {"steps": "0", "name": run.name}
    have = {name: hash for name, (hash, _html) in first["parts"].items()}
    assert looks.look(run.id, first["key"], have) is None
    run.append(step(1))
    second = looks.look(run.id, first["key"], have)
    assert set(second["parts"]) == {"steps"}
    assert second["moment"] == first["moment"]
    assert "hidden" not in rendered


def test_a_part_that_can_not_be_made_says_so_in_its_place_and_the_others_are_there(run, caplog):
    def refuse(jobs, run):
        raise UserError("its report is damaged: <b>measure again</b>")

    def fail(jobs, run):
        raise KeyError("x")

    parts = {"refused": refuse, "failed": fail, "fine": lambda jobs, run: run.name}
    looked = Looks(Jobs(run.root), parts).look(run.id, "", dict.fromkeys(parts, ""))["parts"]
    assert looked["fine"][1] == run.name
    assert "its report is damaged: &lt;b&gt;measure again" in looked["refused"][1]
    assert UNEXPECTED in looked["failed"][1]
    assert "KeyError: 'x'" in caplog.text  # in the terminal


def test_pages_that_look_at_the_same_time_share_what_was_made(run):
    made = []
    looks = Looks(Jobs(run.root), {"part": lambda jobs, run: made.append(1) or "x"})
    other = Run.create(run.config, run.root)
    for _ in range(30):
        looks.look(run.id, "", {"part": ""})
    other.append(step(1))  # what another run does is nothing new of this one
    looks.look(run.id, "", {"part": ""})
    assert len(made) == 1


def test_the_rest_of_the_page_hears_of_what_began_ended_came_or_went(run, tiny):
    looks = Looks(Jobs(run.root))
    moments = [looks.look(run.id, "", {})["moment"]]

    def heard() -> bool:
        moments.append(looks.look(run.id, "", {})["moment"])
        return moments[-1] != moments[-2]

    run.queue()
    assert not heard()  # one that was made waits, whether it is in the queue or not
    run.beat()
    assert heard()
    run.append(step(1))
    assert not heard()
    run.label(name="called otherwise")
    assert heard()
    Run.create(config(tiny), run.root)
    assert heard()


@pytest.mark.parametrize("run_id", ["", "gone", "../elsewhere", ".", "a/b", "\0"])
def test_no_run_or_one_that_is_gone_is_shown_as_none(run, run_id):
    looked = Looks(Jobs(run.root)).look(run_id, "", dict.fromkeys(EVERY, ""))
    assert set(looked["parts"]) == set(EVERY)
    assert run.id not in looked["parts"]["status"][1]


def test_a_hostile_name_is_shown_as_text_in_every_part(run):
    run.label(name="<img src=x onerror=alert(1)>")
    looked = Looks(Jobs(run.root)).look(run.id, "", dict.fromkeys(EVERY, ""))
    for name, (_hash, html) in looked["parts"].items():
        assert "<img" not in html, name
    assert "&lt;img" in looked["parts"]["chosen"][1]
