"""The answers of a run while it trained."""

from __future__ import annotations

import pytest

from tests.techniques.test_invariants import config
from tunelab import LoRA, Run
from tunelab.measure.changes.scrub import answers_over_steps
from tunelab.run.events import Resumed, Sampled, StepDone


@pytest.fixture
def run(tiny):
    return Run.create(config(tiny, LoRA(r=4)))


def said(step, answer, prompt="Where is my card?"):
    return Sampled(step=step, prompt=prompt, answer=answer)


def test_answers_are_told_prompt_by_prompt_in_the_order_of_their_steps(run):
    for step in (0, 10, 20):
        run.append(said(step, f"a{step}", "first"))
        run.append(said(step, "always", "second"))
    first, second = answers_over_steps(run)
    assert (first.prompt, second.prompt) == ("first", "second")
    assert first.answers == ((0, "a0"), (10, "a10"), (20, "a20"))
    assert [one.step for one in first.changed] == [0, 10, 20]
    assert [one.step for one in second.changed] == [0]


def test_the_answer_at_a_step_is_the_newest_one_up_to_it(run):
    for step in (5, 10):
        run.append(said(step, f"a{step}"))
    (answers,) = answers_over_steps(run)
    assert [answers.at(step) and answers.at(step).answer for step in (4, 5, 9, 10, 99)] == [
        None,
        "a5",
        "a5",
        "a10",
        "a10",
    ]


def test_answers_of_steps_a_resume_went_back_behind_do_not_count(run):
    for step in (10, 20, 30):
        run.append(said(step, f"old {step}"))
    run.append(Resumed(step=20))
    run.append(said(20, "new 20"))
    (answers,) = answers_over_steps(run)
    assert answers.answers == ((10, "old 10"), (20, "new 20"))


def test_a_run_that_asked_nothing_has_no_answers(run):
    assert answers_over_steps(run) == ()
    run.append(
        StepDone(
            step=1, stage=0, loss=1.0, scored_tokens=1, tokens=1, seconds=1.0, gradient_norm=1.0, learning_rate=0.1
        )
    )
    assert answers_over_steps(run) == ()
