"""The Compare room without a browser: what its cards mean, what it reads and shows, and who is heard."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import pytest
from pydantic import ValidationError

from playground import quick, views
from playground.columns import Pick, columns_of, has_strength, problems, results_of, taught
from playground.door import SESSION
from playground.jobs import Jobs
from playground.owners import Caller
from playground.parts import asking, columns, token_view
from playground.parts.pacing import paced
from playground.parts.shared import Shared
from playground.parts.voting import ballots_of, rates_of, vote_files, voter_of
from playground.prompts import MOST_PROMPTS, read_prompts
from playground.rooms import compare
from playground.rooms.compare import fresh_examples
from tests.helpers import ROWS
from tests.measure.test_pages import NAME, Read
from tests.measure.votes.test_store import answer
from tests.measure.votes.voting import ballot, vote
from tests.playground.test_jobs_and_views import until
from tests.train.test_loop import config
from tunelab import IA3, Column, Comparer, Comparison, DataSpec, Run, UserError, finetune
from tunelab.errors import explain
from tunelab.measure.changes.tokens import TokenChange, TokenChanges
from tunelab.measure.votes import Shown
from tunelab.run.trained import heldout_again

HOSTILE = [
    NAME,
    "<img src=x onerror=alert(1)>",
    "![x](http://elsewhere.invalid/a.png)",
    "$x$ ${alert(1)} {{value}}",
    "\u202e\x07",
]


ANSWER = [{"role": "assistant", "content": "so it is"}]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(tiny, root):
    return finetune(config(tiny, steps=3), root=root)


def said(*texts, seeds=(0,), done=True, **more):
    """A comparison of as many columns."""
    labels = ["base", *(f"run {n}" for n in range(1, len(texts)))]
    answers = tuple(
        replace(answer(label, None if label == "base" else label), text=text, column=place, seed=seed)
        for place, (label, text) in enumerate(zip(labels, texts, strict=True))
        for seed in seeds
    )
    return Comparison("Why?", None, answers, done, **more)


# what cards mean


def test_a_card_means_the_column_that_it_says(run):
    picks = [
        Pick(),
        Pick(system="none"),
        Pick(system="own", words="Be brief."),
        Pick(run.id, "stage1", strength=0.5, examples=2),
    ]
    base, bare, prompted, tuned = columns_of(picks, run.root, "Be kind.")
    assert (base.run, base.system) == (None, "Be kind.")
    assert bare.system == ""
    assert prompted.system == "Be brief."
    assert (tuned.run, tuned.strength, tuned.system) == (f"{run.id}@stage1", 0.5, "Be kind.")
    assert len(tuned.examples) == 2
    assert columns_of([Pick(run.id)], run.root, None)[0].system is None


def test_examples_are_rows_that_were_trained_on_and_never_held_out(run):
    heldout = {row.prompt for row in heldout_again(run).heldout}
    every = taught(run, 8)
    assert len({asked for asked, _answer in every}) == 8
    assert not heldout & {asked for asked, _answer in every}
    answers = {row["prompt"]: row["completion"] for row in ROWS}
    assert all(answers[asked] == answered for asked, answered in every)
    assert columns_of([Pick(examples=3), Pick(run.id)], run.root)[0].examples == tuple(taught(run, 3))
    with pytest.raises(UserError, match="Take fewer"):
        taught(run, 1000)
    with pytest.raises(UserError, match="Choose a run in another column"):
        columns_of([Pick(examples=3), Pick()], run.root)


def test_held_out_conversations_are_no_examples_to_ask(tiny, root):
    def held_out(*turns):
        """The room's examples of a run whose rows have these turns before the answer."""
        roles = ("user", "assistant", "user")
        rows = [
            {"messages": [*({"role": r, "content": f"{t} {n}"} for r, t in zip(roles, turns, strict=False)), *ANSWER]}
            for n in range(12)
        ]
        data = DataSpec(rows=rows, heldout=4)
        stages = (config(tiny, steps=1).stages[0].model_copy(update={"data": data}),)
        run = finetune(config(tiny, steps=1).model_copy(update={"stages": stages}), root=root)
        return fresh_examples(Jobs(root), [run.id])

    assert len(held_out("say red")["choices"]) == 4
    several = held_out("say red", "red", "and now")
    assert several["choices"] == []
    assert "several turns" in several["info"]


def test_what_can_not_stand_together_is_said_beside_the_column_that_differs(run, tiny):
    other = config(tiny, steps=1)
    other = other.model_copy(update={"model": other.model.model_copy(update={"dtype": "bfloat16"})})
    other = finetune(other, root=run.root)
    said = problems([Pick(), Pick(run.id), Pick(other.id), Pick("gone")], run.root)
    assert said[:2] == ["", ""]
    assert "another base" in said[2]
    assert "bfloat16" in said[2]
    assert "not there any more" in said[3]


def test_only_what_has_strength_can_be_made_stronger(run, tiny):
    weak = config(tiny, steps=1).model_copy(update={"technique": IA3()})
    assert has_strength(run)
    assert not has_strength(Run.create(weak, run.root))
    assert not has_strength(None)
    assert results_of(run) == results_of(None)  # of one stage, without kept steps: nothing to choose


# what is shown


@pytest.mark.parametrize("text", HOSTILE)
def test_answers_prompts_and_names_are_text(text):
    hostile = said(text, f"{text} more", history=(((text, text),),) * 2)
    hostile = replace(hostile, prompt=text)
    tokens = TokenChanges((TokenChange(text, 1, -1.0, -0.5),), 1, (text,))
    pages = [
        *(views.answer_html(hostile, column, view) for column in (0, 1) for view in ("plain", "diff", "only")),
        views.tokens_html(tokens, text, SimpleNamespace(name=text), [text]),
        views.set_html([hostile, replace(hostile, answers=(), error=text)], False, True, ""),
        views.ballot_html(Shown("t", text, (text, text), text), ""),
        views.problem_html(text),
    ]
    for page in map(Read, pages):
        assert not {"script", "img", "a"} & set(page.elements)
        assert not [name for name, _value in page.attributes if name.startswith("on")]
    assert text in Read(pages[0]).texts


def test_differences_are_marked_and_nothing_of_either_answer_is_lost():
    one = said("the red house stands", "the blue house stands here")
    page = str(views.answer_html(one, 1, "diff"))
    assert "<del>red </del><ins>blue </ins>" in page
    assert "<ins>" not in views.answer_html(one, 0, "diff")
    only = Read(views.answer_html(one, 1, "only")).texts
    assert "red" in only
    assert not any("house" in text for text in only)
    assert "<ins>" not in views.answer_html(replace(one, done=False), 1, "diff")  # while they grow


def test_equal_answers_of_several_seeds_are_shown_once():
    one = said("same", "same", seeds=(3, 4, 5))
    page = Read(views.answer_html(one, 1))
    assert page.texts.count("same") == 1
    assert "×3" in page.texts
    assert "seeds 3, 4, 5" in page.texts


def test_what_is_copied_is_the_answer_however_it_is_shown():
    one = said("the red house", "the blue house")
    for view in ("plain", "diff", "only"):
        assert Read(views.answer_html(one, 1, view)).every("data-copy") == ["the blue house"]


def test_under_several_answers_stand_all_of_them():
    group = said("a", "b", seeds=(3, 4)).by_column[0]
    cut = replace(group[0], stop_reason="length", tokens=1000, seconds=2.0)
    ended = replace(group[1], stop_reason="end of turn", tokens=234, seconds=1.0)
    footer = views.answer_footer([cut, ended])
    assert footer.startswith("1,234 tokens in 2.0 s · 1 cut at the length · 1 ended by itself")
    assert "seeds 3, 4" in footer
    assert "seeds" not in views.answer_footer([cut])


def test_tokens_are_read_with_the_system_prompt_that_the_column_was_asked_with(monkeypatch):
    read = []
    monkeypatch.setattr(token_view, "token_changes", lambda run, text, **more: read.append(more["system"]))
    monkeypatch.setattr(token_view, "_tuned", lambda *_: SimpleNamespace(name="run"))
    monkeypatch.setattr(views, "tokens_html", lambda *_: "")
    asked = Column(), Column(system=""), Column(system="Be brief.")
    now = asking.Said((), "", asked, said("a", "b", "c"))
    for column in range(3):
        token_view._read(None, now, column)
    assert read == [None, "", "Be brief."]


def test_a_set_can_show_only_prompts_on_which_answers_differ():
    same, other = said("a", "a"), replace(said("a", "b"), prompt="Who?")
    failed = Comparison("Too long", None, (), True, error="too long")
    page = Read(views.set_html([same, other, failed], True, False, ""))
    assert {"Who?", "Too long", "too long"} <= set(page.texts)
    assert "Why?" not in page.texts
    assert "3 prompts; answers differ on 1; 1 could not be answered" in page.texts


def test_the_token_view_says_how_much_more_likely_the_answer_became():
    tokens = (TokenChange("a", 1, -3.0, -0.5), TokenChange("b", 1, -1.0, -1.0), TokenChange("c", 1, -0.1, -1.6))
    page = views.tokens_html(TokenChanges(tokens, 3, ()), "base", SimpleNamespace(name="tickets"), [])
    read = Read(page)
    assert "the base gives it −4.10 nats, tickets −3.10" in read.texts[0]
    assert "The tuned model finds it 2.72 times as likely: 1.40 times a token." in read.texts[0]  # e and e^(1/3)
    kinds = [value.split()[1:] for value in read.every("class") if value and value.startswith("token")]
    assert kinds[-3:] == [["up2"], [], ["down2"]]
    assert "base −3.00, tuned −0.50 nats, change +2.50" in read.every("title")


def test_what_happened_is_told_with_the_runs_own_numbers(run):
    words = " ".join(Read(views.landed_html(run)).texts)
    progress = run.progress()
    assert "learned in 3 steps and " in words
    assert ", 4 rows a step out of 12: " in words
    assert f"from {progress.base_loss:.2f} (base) to {progress.heldout_loss:.2f} nats" in words
    assert "On 4 rows that it never saw" in words
    assert not Read(views.landed_html(None)).texts


def test_what_leads_on_from_the_quick_adapter_is_gone_when_something_was_trained_since(tiny, tmp_path, monkeypatch):
    run = finetune(config(tiny, steps=3), root=tmp_path)
    monkeypatch.setattr(quick, "is_quick", lambda one: one.id == run.id)
    with gr.Blocks() as page:
        given = gr.Tabs(), gr.State(None), gr.State(None), gr.Button()
        room = compare.build(Shared(page, Jobs(tmp_path), None, *given), columns.hold())

    def said():
        return " ".join(Read(compare.show(Jobs(tmp_path), room, run)[room.landed]).texts)

    assert "learned in 3 steps" in said()
    Run.create(config(tiny, steps=2), tmp_path)  # which has not learned anything
    assert said()
    finetune(config(tiny, steps=2), root=tmp_path)
    assert not said()


# sets of prompts


@pytest.mark.parametrize(
    ("written", "prompts"),
    [
        ("one\n\n two \nthree, and four", ("one", "two", "three, and four")),
        ("id,prompt\n1,one\n2,two", ("one", "two")),
        ("id;question\n1;one\n2;two", ("one", "two")),
        (json.dumps([{"prompt": "one"}, {"prompt": "two"}], indent=2), ("one", "two")),
        ("{{name}} is who?\n[1, 2] is what?", ("{{name}} is who?", "[1, 2] is what?")),
        ('{"question": "one"}\n{"question": "two"}', ("one", "two")),
        ("\n".join(HOSTILE[:4]), tuple(HOSTILE[:4])),
    ],
)
def test_prompts_are_read_as_they_were_written(written, prompts, tmp_path):
    assert read_prompts(written, None).prompts == prompts
    for suffix in (".txt", ".csv", ".jsonl"):
        path = tmp_path / f"set{suffix}"
        rows = {".txt": prompts, ".csv": ["number,prompt", *(f'{n},"{p}"' for n, p in enumerate(prompts))]}
        lines = rows.get(suffix, [json.dumps({"prompt": prompt}) for prompt in prompts])
        if suffix == ".csv" and any('"' in prompt for prompt in prompts):
            continue
        path.write_text("\n".join(lines), encoding="utf-8")
        assert read_prompts("", str(path)).prompts == prompts


def test_what_is_left_out_of_a_set_is_said(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(json.dumps({"instruction": text, "input": "x"}) for text in "ab"))
    read = read_prompts("c", str(path))
    assert read.prompts == ("a", "b")
    assert "the column instruction is asked; not read: input" in read.notes
    assert "the file is asked, not what is written beside it" in read.notes
    path.write_text("\n".join(json.dumps({"prompt": text}) for text in ["a", "a", "", "b"]))
    read = read_prompts("", str(path))
    assert read.prompts == ("a", "b")
    assert any("1 row has no text" in note for note in read.notes)
    assert any("1 prompt was there already" in note for note in read.notes)
    many = read_prompts("\n".join(map(str, range(MOST_PROMPTS + 5))), None)
    assert len(many.prompts) == MOST_PROMPTS
    assert f"of {MOST_PROMPTS + 5}" in many.notes[0]
    path.write_text('{"answer": "a"}\n{"answer": "b"}')
    with pytest.raises(UserError, match="no column called prompt"):
        read_prompts("", str(path))
    with pytest.raises(UserError, match="There are no prompts"):
        read_prompts(" \n ", None)


# votes


def test_three_columns_become_two_ballots_against_the_first():
    made = ballots_of(said("a", "b", "c", seeds=(0, 1)))
    assert [[column.text for column in one.columns] for one in made] == [["a", "b"], ["a", "c"]]
    assert [column.label for column in made[1].columns] == ["base", "run 2"]


def test_a_voter_is_the_browsers_session_which_an_export_does_not_give_away():
    page = SimpleNamespace(cookies={SESSION: "secret"})
    assert voter_of(page, None) == voter_of(page, "other")
    assert "secret" not in voter_of(page, None)
    nobody = SimpleNamespace(cookies={})
    assert voter_of(nobody, "kept") == "kept"
    assert voter_of(nobody, None) != voter_of(nobody, None)


def test_votes_say_who_wins_for_every_column_and_become_files(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    votes = [vote(ballot(f"p{n}", ("base", "x")), "x", "v") for n in range(12)]
    votes.append(vote(ballot("q", ("base", "y")), "base"))
    first, second = rates_of(votes)
    assert (first.tuned, first.wins, first.losses, first.verdict) == ("x", 12, 0, "better")
    assert (second.tuned, second.losses) == ("y", 1)
    turned = ballot("r", ("x", "base"))  # the columns stood in the other order
    assert [(one.tuned, one.wins) for one in rates_of([*votes, vote(turned, "x")])] == [("x", 13), ("y", 0)]
    table, rows, pairs = vote_files(votes)
    assert table.read_text(encoding="utf-8-sig").count("\n") == 14
    assert len(rows.read_text().splitlines()) == 13
    assert json.loads(pairs.read_text().splitlines()[-1]) == {
        "prompt": "q", "chosen": "answer of base to q", "rejected": "answer of y to q",
    }  # fmt: skip
    with pytest.raises(UserError, match="Vote first"):
        vote_files([])


# who is heard


def test_a_page_hears_of_answers_at_most_so_often_and_of_the_last_one_always():
    now = iter(range(100))
    growing = [said("x" * n, done=n == 9) for n in range(10)]
    heard = list(paced(iter(growing), every=100, clock=lambda: next(now)))
    assert heard == [growing[0], growing[-1]]
    assert list(paced(iter(growing), every=0)) == growing


# programs


@pytest.fixture
def calls(run):
    """What programs may call, by name."""
    from playground import api

    jobs = Jobs(run.root)
    with Comparer(run.root) as comparer:
        yield {name: function for name, (function, _more) in api._asking(jobs, comparer).items()}


def test_a_program_goes_on_with_a_conversation_of_its_columns(run, calls):
    columns = [{"run": None, "system": "Be brief."}, {"run": run.id, "strength": 0.5, "examples": [["say red", "red"]]}]
    first = calls["compare"]([], "say blue", "", 4, 0.0, 0, columns, None)
    assert [one["label"] for one in first["answers"]] == ["base with system prompt", f"{run.name} × 0.5 with 1 example"]
    assert first["continued"] == [[["say blue", one["text"]]] for one in first["answers"]]
    again = calls["compare"]([], "and now?", "", 4, 0.0, 0, columns, first["continued"])
    assert all("1 earlier turn" in one["provenance"] for one in again["answers"])
    *_growing, last = calls["stream"]([], "and now?", "", 4, 0.0, 0, columns, first["continued"])
    assert [one["text"] for one in last["answers"]] == [one["text"] for one in again["answers"]]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"columns": [{"runs": "x"}]}, "columns.0.runs = 'x': there is no such setting here"),
        ({"columns": [{"strength": "strong"}]}, "columns.0.strength = 'strong'"),
        ({"columns": [{"examples": [["a"]]}]}, "columns.0.examples.0.1"),
        ({"columns": ["x"]}, "columns.0 = 'x'"),
        ({"history": [[["a", "b", "c"]]]}, "history.0.0"),
        ({"max_new_tokens": "many"}, "max_new_tokens = 'many'"),
        ({"prompt": None}, "prompt"),
    ],
)
def test_what_a_program_gives_and_can_not_be_is_named(calls, given, named):
    with pytest.raises(ValidationError) as wrong:
        calls["compare"](**{"runs": [], "prompt": "x", **given})
    assert named in str(explain(wrong.value))


def test_the_simple_call_is_base_and_runs(run, calls):
    asked = calls["compare"]([run.id], "say blue", "", 4)
    assert [one["label"] for one in asked["answers"]] == ["base", run.name]
    assert asked["done"]


@pytest.mark.slow
def test_it_is_said_once_that_a_run_is_nearly_done(tiny):
    heard = []
    jobs = Jobs(on_nearly_done=lambda run: heard.append((run.id, run.progress().step)))
    jobs.watch()
    run = jobs.start(config(tiny, steps=40), Caller.server())
    until(lambda: run.status == "finished" and heard)
    jobs.end()
    for _ in range(3):  # as the thread that watches does, again and again
        jobs._look_ahead()
    assert [one for one, _step in heard] == [run.id]
    assert heard[0][1] >= 36
