"""What tuned is compared with beside its base, on the same rows: other prompts, floors, other runs, other tools."""

from __future__ import annotations

import json

import pytest

from tests.helpers import WORDS
from tests.techniques.test_invariants import spec_of
from tunelab import (
    Comparer,
    DataSpec,
    LoRA,
    RunConfig,
    Stage,
    TrainConfig,
    UserError,
    evaluate,
    finetune,
    load,
    read_data,
)
from tunelab.answer.likelihood import continuations
from tunelab.cli import main
from tunelab.data import Message, encode_prompt
from tunelab.errors import LONGEST
from tunelab.measure.answered import read_rows, rows_of, write_as
from tunelab.measure.evaluation import evaluate_all
from tunelab.measure.floors import majority, naive_bayes, nearest_neighbour
from tunelab.measure.metrics import Accuracy, ExactMatch
from tunelab.measure.settings import Measuring
from tunelab.measure.task import shown, told

FEW = {"instructions": 2, "questions": 0, "max_new_tokens": 6}
LABELLED = [
    {"prompt": f"{word} {kind} now", "completion": kind} for word in WORDS for kind in ("card", "cash", "card lost")
]


def run_on(tiny, rows=LABELLED, steps=2, seed=0):
    data = DataSpec(rows=rows, heldout=12, seed=seed)
    training = TrainConfig(steps=steps, batch_size=4, learning_rate=0.01)
    return finetune(RunConfig(model=spec_of(tiny), technique=LoRA(r=4), stages=(Stage(data=data, training=training),)))


@pytest.fixture(scope="module")
def labelled(tiny, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNELAB_HOME", str(tmp_path_factory.mktemp("home")))
        return run_on(tiny, steps=40)


def split_of(run):
    return read_data(run.config.stages[0].data)


def test_floors_answer_the_same_rows_and_tuned_is_compared_with_each(labelled):
    report = evaluate(labelled, rows=12, **FEW)
    split = split_of(labelled)
    asked, known = [one.prompt for one in split.heldout], [one.prompt for one in split.train]
    answers, wanted = [one.answer for one in split.train], [one.answer for one in split.heldout]
    floors = {"most frequent answer": majority, "nearest neighbour": nearest_neighbour, "naive Bayes": naive_bayes}
    assert [one.name for one in report.baselines] == list(floors)
    for one in report.baselines:
        expected = Accuracy()(floors[one.name](known, answers, asked), wanted)
        assert one.metrics["accuracy"].base == pytest.approx(expected)
        assert one.metrics["accuracy"].tuned == report.metrics["accuracy"].tuned
        change = one.metrics["accuracy"].change
        assert change.value == pytest.approx(report.metrics["accuracy"].tuned - expected)
    assert report.main_metric == "accuracy"
    assert {"accuracy", "macro_f1", "exact_match", "chrf"} == set(report.metrics)


def test_the_base_is_asked_with_a_system_prompt_and_with_examples_as_it_would_be_by_hand(labelled):
    report = evaluate(labelled, rows=12, system="One word.", examples=2, **FEW)
    assert report.asked == {"system": "One word.", "examples": "2"}
    by_name = {one.name: one for one in report.baselines}
    split = split_of(labelled)
    rows = rows_of(labelled)
    with Comparer(labelled.root) as comparer:

        def base(asked):
            return [pair[0] for pair in comparer.answers([labelled], asked, max_new_tokens=6)]

        system = base([(Message("system", "One word."), *one.asked) for one in split.heldout])
        assert [row.others["base with a system prompt"] for row in rows] == system
        answered = [row.others["base with 2 examples"] for row in rows]
    assert by_name["base with 2 examples"].metrics["exact_match"].base == pytest.approx(
        ExactMatch()(answered, [one.answer for one in split.heldout])
    )


def test_examples_stand_after_the_systems_words_and_before_the_question(labelled):
    from tunelab.measure.task import task_for

    split = split_of(labelled)
    task = task_for(None, split.train, [one.answer for one in split.train])
    examples = task.examples(3)
    assert len({one.answer for one in examples}) == 3  # as different as there are
    assert all(one in split.train for one in examples)
    asked = (Message("system", "Be brief."), Message("user", "blue?"))
    turns = shown(asked, examples)
    assert [turn.role for turn in turns] == ["system", *["user", "assistant"] * 3, "user"]
    assert turns[-1] == asked[-1]
    assert told(asked, "One word.")[0].content == "Be brief.\n\nOne word."
    assert told(asked[1:], "One word.") == (Message("system", "One word."), asked[1])
    with pytest.raises(UserError, match="examples = 200: 36 training rows"):
        task.examples(200)


def test_as_many_examples_are_shown_as_the_models_rows_have_room_for(tiny):
    long = [{**row, "prompt": row["prompt"] + " please" * 20} for row in LABELLED]
    report = evaluate(run_on(tiny, long), rows=12, examples=32, **FEW)
    (name,) = [one.name for one in report.baselines if one.name.startswith("base with")]
    count = int(name.split()[2])
    assert 0 < count < 32
    assert f"of 32 examples before the question, {count} fit into the model's rows" in report.notes


def test_by_likelihood_the_label_is_chosen_that_a_plain_forward_finds_likeliest(labelled):
    import torch

    report = evaluate(labelled, rows=12, by="likelihood", **FEW)
    labels = ["card", "card lost", "cash"]
    fresh = load(labelled.base_spec)
    tuned = labelled.config.technique.load(load(labelled.base_spec), labelled.adapter_path).eval()
    for row, one in zip(rows_of(labelled), split_of(labelled).heldout, strict=True):
        prompt = encode_prompt(one.asked, fresh.tokenizer)
        for model, answer in ((fresh.model, row.base), (tuned, row.tuned)):
            scores = []
            for ids in continuations(one.asked, labels, fresh.tokenizer):
                with torch.no_grad():
                    logits = model(input_ids=torch.tensor([prompt + ids])).logits[0]
                log_p = torch.log_softmax(logits[-len(ids) - 1 : -1].double(), dim=-1)
                scores.append(float(log_p[range(len(ids)), ids].sum()))
            assert answer == labels[scores.index(max(scores))]
    assert report.by == "likelihood"
    assert report.cut_answers.base == report.cut_answers.tuned == 0


def test_labels_are_those_it_was_trained_on_also_where_other_rows_have_fewer(labelled):
    other = DataSpec(rows=[{"prompt": f"{word} card please", "completion": "card"} for word in WORDS[:6]] * 2)
    evaluate(labelled, rows=12, by="likelihood", data=other, **FEW)
    assert {row.tuned for row in rows_of(labelled)} <= {"card", "card lost", "cash"}


def test_plain_text_of_runs_on_other_bases_is_not_compared(tiny, tmp_path):
    from tests.helpers import tiny_llama

    def trained(folder):
        stage = Stage(data=DataSpec(rows=[{"text": f"{w} and " * 30} for w in WORDS], heldout=4), learn="text")
        stage = stage.model_copy(update={"training": TrainConfig(steps=1, batch_size=2)})
        return finetune(RunConfig(model=spec_of(folder), technique=LoRA(r=4), stages=(stage,)))

    runs = [trained(tiny), trained(str(tiny_llama(tmp_path / "other", seed=5)))]
    with pytest.raises(UserError, match="stand on different bases"):
        evaluate_all(runs, Measuring(rows=4, **FEW))


def test_answers_that_are_no_labels_can_not_be_measured_by_likelihood(tiny):
    run = run_on(tiny, [{"prompt": f"say {word}", "completion": f"{word}, and {word} again"} for word in WORDS], 1)
    with pytest.raises(UserError, match="no labels"):
        evaluate(run, rows=4, by="likelihood", **FEW)


def test_rows_answers_and_scores_lie_in_the_run(labelled):
    report = evaluate(labelled, rows=12, **FEW)
    rows = read_rows(labelled.path / report.answers_file)
    assert rows == rows_of(labelled)
    assert [row.prompt for row in rows] == [one.prompt for one in split_of(labelled).heldout]
    for side in ("base", "tuned"):
        mean = sum(getattr(row, f"{side}_scores")["exact_match"] for row in rows) / len(rows)
        assert mean == pytest.approx(getattr(report.metrics["exact_match"], side))
    assert all(row.label == row.reference for row in rows)
    assert set(rows[0].others) == {one.name for one in report.baselines}


def test_runs_are_measured_on_rows_that_none_was_trained_on(tiny):
    first, second = run_on(tiny), run_on(tiny, seed=1)  # of other rows each
    both = {one.prompt for one in split_of(first).heldout} - {one.prompt for one in split_of(second).train}
    assert 2 <= len(both) < 12
    reports = evaluate_all([first, second], Measuring(rows=12, **FEW))
    assert {row.prompt for row in rows_of(first)} == {row.prompt for row in rows_of(second)} == both
    assert reports[0].left_out == reports[1].left_out == 12 - len(both)
    alone = evaluate(first, rows=12, **FEW)
    assert alone.left_out == 0


def test_a_metric_of_ones_own_is_the_tasks_and_a_row_it_raises_on_is_named(labelled, tmp_path):
    mine = tmp_path / "same_start.py"
    mine.write_text(
        "def score(prediction, reference):\n"
        "    if reference == 'card lost': raise KeyError('lost')\n"
        "    return 100.0 * (prediction[:1] == reference[:1])\n"
    )
    report = evaluate(labelled, rows=12, metric=mine, **FEW)
    kept = [row for row in rows_of(labelled) if row.reference != "card lost"]
    assert report.main_metric == "same_start"
    assert report.main.change.n == len(kept)
    expected = 100 * sum(row.tuned[:1] == row.reference[:1] for row in kept) / len(kept)
    assert report.main.tuned == pytest.approx(expected)
    assert any("same_start raised on" in note for note in report.notes)
    assert report.metrics["accuracy"].change.n == 12


def test_other_tools_read_the_rows(labelled, tmp_path):
    evaluate(labelled, rows=12, **FEW)
    rows = rows_of(labelled)
    written = write_as(rows, tmp_path / "samples.jsonl", "lm-eval", labelled)
    assert [path.name for path in written] == ["samples-base.jsonl", "samples-tuned.jsonl"]
    samples = [json.loads(line) for line in written[1].read_text().splitlines()]
    assert [sample["doc_id"] for sample in samples] == list(range(12))
    assert [sample["filtered_resps"] for sample in samples] == [[row.tuned] for row in rows]
    assert [sample["exact_match"] for sample in samples] == [row.tuned_scores["exact_match"] for row in rows]
    (file,) = write_as(rows, tmp_path / "comparator.json", "comparator", labelled)
    content = json.loads(file.read_text())
    assert [model["name"] for model in content["models"]] == ["base", labelled.name]
    for row, one in zip(rows, content["examples"], strict=True):
        assert (one["input_text"], one["output_text_a"], one["output_text_b"]) == (row.prompt, row.base, row.tuned)
        assert -1.5 <= one["score"] <= 1.5


def test_on_the_command_line(labelled, tmp_path, capsys, monkeypatch):
    few = ["--rows", "12", "--max-new-tokens", "4", "--instructions", "2", "--questions", "0"]
    runs = ["--runs", str(labelled.root)]
    assert main(["evaluate", labelled.id, *few, *runs, "--examples", "1", "--out", str(tmp_path / "rows.jsonl")]) == 0
    printed = capsys.readouterr().out
    for words in ("accuracy, %", "macro-F1", "most frequent answer", "naive Bayes", "base with 1 example"):
        assert words in printed
    assert len(read_rows(tmp_path / "rows.jsonl")) == 12
    assert main(["evaluate", labelled.id, *few, *runs, "--against", labelled.id]) == 2
    assert "named twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"examples": 99}, "examples = 99: allowed are 0 to 32"),
        ({"instructions": 1}, "instructions = 1: allowed are 2 to 60"),
        ({"by": "luck"}, "allowed are 'answer' and 'likelihood'"),
        ({"system": " "}, "it is empty"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_before_anything_is_loaded(labelled, setting, words):
    with pytest.raises(UserError, match=words) as caught:
        evaluate(labelled, **setting)
    assert len(str(caught.value)) <= LONGEST
