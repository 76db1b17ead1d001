"""What tuned is compared with beside its base, on the same rows: other prompts, floors, other runs, other tools."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

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
from tunelab.measure.answered import read_rows, rows_of, write_as, write_rows
from tunelab.measure.changes.rows import AnsweredRow
from tunelab.measure.evaluation import evaluate_all
from tunelab.measure.floors import majority, naive_bayes, nearest_neighbour
from tunelab.measure.metrics import Accuracy, ExactMatch
from tunelab.measure.settings import Measuring
from tunelab.measure.sides_compared import compare_runs
from tunelab.measure.statistics import compared_scores
from tunelab.measure.task import shown, told
from tunelab.run.report_words import in_words
from tunelab.run.reports import read_report

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
    # a row has no macro-F1: whoever takes the mean of rows would get the accuracy
    assert samples[0]["metrics"] == ["accuracy", "exact_match", "chrf"]
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
    # with other runs, each has a file of its own: the first where it was asked for, the others beside it
    shutil.copytree(labelled.root, tmp_path / "runs")
    shutil.copytree(labelled.path, tmp_path / "runs" / "other")
    weights = tmp_path / "runs" / "other" / "adapter" / "adapter_model.safetensors"
    save_file({name: torch.zeros_like(tensor) for name, tensor in load_file(weights).items()}, weights)
    both = ["--runs", str(tmp_path / "runs"), "--against", "other", "--out", str(tmp_path / "both.jsonl")]
    assert main(["evaluate", labelled.id, *few, *both]) == 0
    first, other = (read_rows(tmp_path / name) for name in ("both.jsonl", "both-other.jsonl"))
    assert [row.row for row in first] == [row.row for row in other]
    assert [row.tuned for row in other] == [row.base for row in other]  # what an adapter of zeros answers
    assert [row.tuned for row in first] != [row.base for row in first]
    capsys.readouterr()
    # a file that can't be written costs nobody the figures
    assert main(["evaluate", labelled.id, *few, *runs, "--out", "/proc/none/rows.jsonl"]) == 2
    assert "accuracy, %" in capsys.readouterr().out


def test_a_label_that_is_spelled_in_several_ways_is_one_label_to_those_who_guess():
    from tunelab.measure.task import task_for

    answers = ["card"] * 6 + ["cash", "Cash", "cash ", "CASH"] * 2
    train = read_data(
        DataSpec(rows=[{"prompt": f"{n} {a}", "completion": a} for n, a in enumerate(answers)], heldout=1)
    ).train
    task = task_for(None, train, answers)
    (guess, *_others) = task.guesses(task.floors()["most frequent answer"], train)
    assert guess.strip().casefold() == "cash"


def test_a_row_is_read_back_whatever_ends_of_lines_its_texts_hold(tmp_path):
    text = "one\u2028two\u2029three\x85four\x0bfive\x1csix\r\nseven"
    rows = [AnsweredRow(row=number, prompt=text, base=text, tuned="") for number in (1, 2)]
    write_rows(rows, tmp_path / "rows.jsonl")
    assert read_rows(tmp_path / "rows.jsonl") == rows
    write_rows([], tmp_path / "rows.jsonl")
    assert read_rows(tmp_path / "rows.jsonl") == []


def rated(labelled, tmp_path, better):
    report = read_report(labelled.path)
    figure = report.metrics["accuracy"].model_copy(update={"higher_is_better": better})
    report.model_copy(update={"metrics": {"accuracy": figure}}).write(labelled.path / "report.json")
    scores = [(0.0, 100.0), (100.0, 0.0), (50.0, 50.0), (0.0, 50.0), (0.0, None)]
    rows = [
        AnsweredRow(
            row=number,
            prompt="x",
            base="a",
            tuned="b",
            base_scores={"accuracy": before},
            tuned_scores={} if after is None else {"accuracy": after},
        )
        for number, (before, after) in enumerate(scores, 1)
    ]
    (file,) = write_as(rows, tmp_path / "c.json", "comparator", labelled)
    return json.loads(file.read_text())


def test_llm_comparator_is_told_which_answer_is_the_better_one(labelled, tmp_path):
    """Its README: "A positive score represents that A's response is better than B's; a negative score indicates B is
    better; and zero meaning a tie. We assume that the scores are in the range of 1.5 to -1.5."""
    evaluate(labelled, rows=12, **FEW)
    found = rated(labelled, tmp_path, better=True)
    assert [model["name"] for model in found["models"]] == ["base", labelled.name]
    assert [one["score"] for one in found["examples"]] == [-1.5, 1.5, 0.0, -0.75, None]
    assert found["metadata"]["custom_fields_schema"] == [{"name": "reference", "type": "text"}]
    assert [one["score"] for one in rated(labelled, tmp_path, better=False)["examples"]][:2] == [1.5, -1.5]
    assert {one["score"] for one in rated(labelled, tmp_path, better=None)["examples"]} == {None}


def own_metric(tmp_path, code, name="mine.py"):
    path = tmp_path / name
    path.write_text(f"{code}\ndef score(prediction, reference):\n    return 40 + len(prediction)\n")
    return path


def test_a_metric_of_ones_own_is_not_lost_behind_another_of_its_name(labelled, tmp_path):
    for name in ("exact_match", "macro_f1"):
        report = evaluate(labelled, rows=12, metric=own_metric(tmp_path, "", f"{name}.py"), **FEW)
        assert report.main_metric == f"{name}_own"
        assert report.main.tuned >= 40
        assert report.main.title.endswith("(own)")
        assert report.metrics[name].tuned <= 100
        assert report.metrics[name].base < 40


def test_a_figure_without_a_direction_is_nowhere_better_or_worse(labelled, tmp_path):
    metric = own_metric(tmp_path, "higher_is_better = None")
    report = evaluate(labelled, rows=12, metric=metric, **FEW)
    assert report.main.higher_is_better is None
    assert all(one.metrics["mine"].higher_is_better is None for one in report.baselines)


def test_runs_are_compared_in_the_direction_of_the_metric(labelled):
    def rows(scores):
        return [
            AnsweredRow(row=n, prompt=str(n), base="", tuned="", base_scores={"mine": 0}, tuned_scores={"mine": score})
            for n, score in enumerate(scores)
        ]

    few, many = rows([1.0 + n % 3 for n in range(40)]), rows([5.0 + n % 4 for n in range(40)])
    for better, verdict in ((True, "better"), (False, "worse"), (None, "different")):
        known = compared_scores([0.0], [1.0], higher_is_better=better).model_copy(update={"title": "my own"})
        (figure,) = compare_runs(few, many, {"mine": known}).values()
        assert (figure.title, figure.verdict) == ("my own", verdict)


def test_held_out_labels_that_no_training_row_has_count_as_what_they_are(tiny, tmp_path):
    file = tmp_path / "heldout.jsonl"
    asked = [("one", "card"), ("two", "never seen"), ("three", "CASH "), ("four", "card lost")]
    file.write_text("".join(f"{json.dumps({'prompt': p, 'completion': c})}\n" for p, c in asked))
    training = TrainConfig(steps=2, batch_size=4)
    stage = Stage(data=DataSpec(rows=LABELLED, heldout=str(file)), training=training)
    run = finetune(RunConfig(model=spec_of(tiny), technique=LoRA(r=4), stages=(stage,)))
    report = evaluate(run, rows=12, **FEW)
    assert report.main_metric == "accuracy"
    assert report.metrics["macro_f1"].change.n == report.rows == 4


def test_a_held_out_row_that_the_metric_can_not_score_costs_that_row(tiny, tmp_path):
    file = tmp_path / "heldout.jsonl"
    asked = [("one", '{"a": 1}'), ("two", "no JSON"), ("three", '{"a": 2}')]
    file.write_text("".join(f"{json.dumps({'prompt': p, 'completion': c})}\n" for p, c in asked))
    rows = [{"prompt": f"q {word}", "completion": json.dumps({"a": word})} for word in WORDS]
    stage = Stage(data=DataSpec(rows=rows, heldout=str(file)), training=TrainConfig(steps=2, batch_size=4))
    run = finetune(RunConfig(model=spec_of(tiny), technique=LoRA(r=4), stages=(stage,)))
    report = evaluate(run, rows=12, **FEW)
    assert report.main_metric == "field_f1"
    assert (report.rows, report.main.change.n, report.metrics["exact_match"].change.n) == (3, 2, 3)
    assert any("field F1 can't score 1 of 3 rows" in note for note in report.notes)


def test_where_nothing_is_answered_what_needs_answers_is_refused_or_said(tiny, tmp_path, capsys):
    rows = [{"text": f"{word} is a colour, and so is {other}. " * 6} for word in WORDS for other in WORDS[:2]]

    def run(seed):
        training = TrainConfig(steps=2, batch_size=4, seed=seed)
        stage = Stage(data=DataSpec(rows=rows, heldout=6), training=training, learn="text")
        return finetune(RunConfig(model=spec_of(tiny), technique=LoRA(r=4), stages=(stage,)))

    first, second = run(0), run(1)
    with pytest.raises(UserError, match="plain text has no answers"):
        evaluate(first, by="likelihood", **FEW)
    report = evaluate(first, metric=own_metric(tmp_path, ""), system="Be brief.", **FEW)
    assert [note.partition(" was not measured")[0] for note in report.notes] == [
        "the metric of your own",
        "the base with a system prompt",
    ]
    few = ["--runs", str(first.root), "--instructions", "2", "--questions", "0", "--out", str(tmp_path / "rows.jsonl")]
    assert main(["evaluate", first.id, "--against", second.id, *few]) == 0
    printed = capsys.readouterr()
    assert "Nothing is answered here" in printed.out
    assert "nothing is written" in printed.err
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_file_that_can_not_be_used_is_told_before_anything_is_answered(labelled, tmp_path):
    said = []
    gone, short, wrong = tmp_path / "gone.jsonl", tmp_path / "short.jsonl", tmp_path / "wrong.jsonl"
    short.write_text(json.dumps({"prompt": "code?", "completion": "ab"}))
    wrong.write_text(json.dumps({"ctx": "A", "endings": ["one"], "label": 0}))
    for settings, words in (
        ({"questions": 3, "probe": gone}, "gone.jsonl: there is no such file"),
        ({"questions": 3, "probe": wrong}, "endings = "),
        ({"memorisation": True, "canaries": gone}, "gone.jsonl: there is no such file"),
        ({"memorisation": True, "canaries": short}, "a code needs at least 4 letters"),
    ):
        with pytest.raises(UserError, match=words) as refused:
            evaluate(labelled, on_progress=said.append, **{**FEW, **settings})
        assert len(str(refused.value)) <= LONGEST
    assert said == []


def test_questions_that_were_left_out_are_told(labelled, tmp_path):
    probe = tmp_path / "probe.jsonl"
    rows = [{"ctx": f"A {n}", "endings": ["sits", "runs"], "label": 1} for n in range(3)]
    rows.append({"ctx": "A", "endings": ["sits", "runs"], "label": 7})
    probe.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    report = evaluate(labelled, rows=12, probe=probe, **{**FEW, "questions": 9})
    assert "label = 7" in in_words(report)


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
