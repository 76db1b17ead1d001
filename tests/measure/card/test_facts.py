"""A card's facts: they are those of the run's directory, whatever its state, and show no more than they should."""

from __future__ import annotations

import json
import shlex

import pytest
import yaml

from tests.helpers import ROWS
from tests.measure.card.made import Read, begun, finished, made_run, measured
from tests.measure.changes.made import answered, scored
from tests.techniques.test_invariants import config
from tunelab import (
    DataSpec,
    LoRA,
    ModelSpec,
    Run,
    RunCard,
    Stage,
    TrainConfig,
    UserError,
    evaluate,
    export_adapter,
    finetune,
    import_adapter,
    report,
)
from tunelab.cli import build_parser, main
from tunelab.measure.card.of_run import MOST_POINTS, thinned
from tunelab.measure.card.page import page_of
from tunelab.measure.card.shown import LONGEST, shown_text
from tunelab.run.events import Failed, RolledBack, StageDone, Stopped
from tunelab.run.reports import Interval

SCORES = [(0.0, 50.0), (50.0, 0.0), (20.0, 20.0), (10.0, 40.0)] * 15


def csv(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "rows.csv"
    path.write_text("\n".join(["prompt,completion", *(f'{r["prompt"]},"{r["completion"]}"' for r in rows)]))
    return path


def test_the_result_is_the_reports(tmp_path):
    run = finished(made_run(tmp_path))
    measured(run, scored(SCORES))
    card = report(run)
    assert card.report.main.base == pytest.approx(sum(b for b, _ in SCORES) / 60)
    assert (card.headline.words, card.headline.tone) == (
        "Better",
        "better" if card.report.verdict == "better" else "open",
    )
    assert card.headline.sentence == "+31 points won, 95 % interval 25 to 37, 300 rows, one run."
    changed = card.changed
    assert (changed.better, changed.worse, changed.same) == (30, 15, 15)
    assert [row.gain for row in changed.improved] == [50] * 5
    assert [row.gain for row in changed.worsened] == [-50] * 5
    assert {row.row for row in changed.worsened} <= set(range(2, 61, 4))
    assert not {"result", "changed", "forgetting"} & card.missing.keys()
    assert "tunelab evaluate" in card.missing["baselines"]


def test_a_figure_without_a_direction_is_different_and_no_row_is_better_by_it(tmp_path):
    run = finished(made_run(tmp_path))
    told = measured(run, scored(SCORES))
    main = told.main.model_copy(update={"higher_is_better": None, "change": Interval(9, 5, 13, 60)})
    sentence = "different: +9 points won, 95 % interval 5 to 13, 60 rows, one run"
    update = {"metrics": {"points": main}, "decision": "different", "sentence": sentence}
    told.model_copy(update=update).write(run.path / "report.json")
    card = report(run)
    assert (card.headline.words, card.headline.tone) == ("Different", "open")
    assert card.changed is None  # no other metric has scores of these rows
    page = page_of(card)
    assert "neither is better" in page
    assert "changed" in page


def test_a_figure_that_is_no_number_stands_in_the_card(tmp_path):
    run = finished(made_run(tmp_path))
    told = measured(run, scored(SCORES))
    nan = float("nan")
    main = told.main.model_copy(update={"tuned": nan, "change": Interval(nan, nan, nan, 60)})
    told.model_copy(update={"metrics": {"points": main}, "sentence": "", "decision": None}).write(
        run.path / "report.json"
    )
    card = report(run, out=tmp_path / "card.html")
    assert card.headline.words == "Not enough evidence"
    facts = json.loads((tmp_path / "card.json").read_text(), parse_constant=pytest.fail)
    assert facts["report"]["metrics"]["points"]["tuned"] == "NaN"


def test_a_baseline_that_does_as_well_takes_the_colour_of_better(tmp_path):
    run = finished(made_run(tmp_path))
    measured(run, scored([(0, 10)] * 30), sentence="better than the base, but naive Bayes does as well: +10 points")
    card = report(run)
    assert card.report.verdict == "better"
    assert card.headline.tone == "open"
    assert card.headline.words == "Better than the base, but naive Bayes does as well"


def test_what_it_took_is_counted_from_its_events(tmp_path):
    card = report(finished(made_run(tmp_path)))
    cost = card.cost
    assert (cost.training_seconds, cost.evaluating_seconds, cost.total_seconds) == (2, 2, 12)
    assert (cost.tokens, cost.tokens_per_second) == (400, 200)
    assert (cost.peak_memory_bytes, cost.forecast_memory_bytes) == (1_500_000_000, 2_000_000_000)
    assert (cost.result_bytes, cost.gpu_peak_memory_bytes) == (1000, None)
    loss, rate = card.curves
    assert loss.series == {
        "train": ((1, 4), (2, 3), (3, 2), (4, 1)),
        "held-out": ((4, 1.5),),
        "base": ((0, 4.5), (4, 4.5)),
    }
    assert [y for _x, y in rate.series["learning rate"]] == [0.25, 0.125, 0.25 / 3, 0.0625]
    assert "lowest 1.500 at step 4" in loss.said


@pytest.mark.parametrize("count", [1, 2, MOST_POINTS, MOST_POINTS + 1, 7 * MOST_POINTS])
def test_a_long_curve_is_its_means(count):
    points = [(float(n), float(n % 10)) for n in range(count)]
    found = thinned(points)
    assert len(found) <= MOST_POINTS
    assert found[-1][0] == count - 1
    each = -(-count // MOST_POINTS)
    sizes = [each] * (len(found) - 1) + [count - each * (len(found) - 1)]
    total = sum(size * y for size, (_x, y) in zip(sizes, found, strict=True))
    assert total == pytest.approx(sum(y for _x, y in points))


def test_settings_say_what_is_not_at_its_default_and_what_auto_came_to(tmp_path):
    data = DataSpec(rows=ROWS, heldout=4)
    stages = tuple(
        Stage(data=data, training=TrainConfig(steps=steps, learning_rate=rate))
        for steps, rate in ((4, "auto"), (8, 0.5))
    )
    card = report(finished(made_run(tmp_path, stages=stages)))
    found = {(one.group, one.name): one for one in card.settings}
    assert (found["training", "steps"].values, found["training", "steps"].default) == (("4", "8"), "60")
    assert found["training", "learning_rate"].values == ("auto: 0.25", "0.5")
    assert (found["technique", "r"].values, found["technique", "r"].default) == (("4",), "16")
    assert (found["training", "batch_size"].values, found["training", "batch_size"].default) == (("8",), None)
    fields = len(TrainConfig.model_fields) + len(LoRA.model_fields) - 1
    assert sum(one.group != "model" for one in card.settings) == fields


def test_rows_are_examined_as_they_were_trained_on(tmp_path):
    rows = [*ROWS, ROWS[0], {"prompt": "write to jane.doe@gmail.com", "completion": "I did that just now, thank you"}]
    (stage,) = report(finished(made_run(tmp_path, data=DataSpec(rows=rows, heldout_rows=ROWS[3:5])))).stages
    assert (stage.rows, stage.heldout_rows) == (stage.examined.rows, stage.examined.heldout_rows) == (18, 2)
    titles = " ".join(f"{found.severity}: {found.title}" for found in stage.examined.findings)
    assert "personal data" in titles
    assert "high: 2 held-out rows" in titles
    assert stage.columns == {"prompt": "prompt", "completion": "completion"}
    assert stage.held_out_by == "rows of their own"
    every = {severity: n for n, severity in enumerate(("high", "medium", "low"))}
    order = [every[found.severity] for found in stage.examined.findings]
    assert order == sorted(order)


def test_data_that_is_gone_or_another_is_said_and_the_rest_stands(tmp_path):
    path = csv(tmp_path / "secret folder", ROWS)
    run = finished(made_run(tmp_path, data=DataSpec(source=str(path), heldout=4)))
    measured(run, scored(SCORES))
    assert report(run).stages[0].examined is not None
    csv(path.parent, ROWS[:-1])
    other = report(Run(run.path))
    assert "1 row is gone" in other.stages[0].not_examined or "rows were used then" in other.stages[0].not_examined
    path.unlink()
    card = report(Run(run.path))
    (stage,) = card.stages
    assert (stage.source, stage.rows, stage.heldout_rows, stage.examined) == ("rows.csv", 12, 4, None)
    assert stage.not_examined.startswith("rows.csv is not where it was")
    assert card.changed.better == 30


def test_nothing_of_this_machine_stands_in_it(tmp_path):
    path = csv(tmp_path / "secret folder", ROWS)
    run = begun(
        made_run(tmp_path / "runs", data=DataSpec(source=str(path), heldout=4)), notes=(f"read {path}",), steps=2
    )
    run.append(Failed(message=f"No permission to write {run.path}/adapter, see {path.parent}/log."))
    csv(path.parent, ROWS[:-1])
    card = report(run)
    for text in (page_of(card), card.model_dump_json()):
        assert "secret folder" not in text
        assert str(tmp_path) not in text
    assert "rows.csv" in card.repeat.configuration
    assert card.message == "No permission to write adapter, see log."


def test_a_report_names_files_without_their_folders(tmp_path):
    path = csv(tmp_path / "secret folder", ROWS)
    run = finished(made_run(tmp_path / "runs", data=DataSpec(source=str(path), heldout=4)))
    elsewhere = "/srv/private place/questions"
    measured(
        run, scored(SCORES), data=elsewhere, sentence=f"better: on {path}", notes=(f"the metric could not open {path}",)
    )
    card = report(run)
    for text in (page_of(card), card.model_dump_json()):
        assert "secret folder" not in text
        assert "private place" not in text
    assert card.report.notes == ("the metric could not open rows.csv",)
    assert card.report.data == "questions"
    assert card.headline.sentence == "On rows.csv."


@pytest.mark.parametrize("text", ["[]", '"none"', "{"])
def test_a_result_that_does_not_say_where_it_comes_from_has_a_card(tmp_path, text):
    run = finished(made_run(tmp_path))
    (run.adapter_path / "tunelab.json").write_text(text)
    assert report(run).trained.base_published_as is None


def test_no_row_is_shown_where_none_shall_be(tmp_path):
    path = csv(tmp_path, [*ROWS, *ROWS])
    run = finished(made_run(tmp_path / "runs", data=DataSpec(source=str(path), heldout=4)))
    rows = [answered(n, "purple base", "orange tuned", reference="beige", scores=(0, n % 3)) for n in range(60)]
    measured(run, rows)
    shown, none = report(run, rows=2), report(run, rows=0)
    assert len(shown.changed.improved) == 2
    assert {len(found.examples) for found in shown.stages[0].examined.findings} <= {0, 1, 2}
    for words in ("purple", "orange", "beige", "say ", "question 2"):
        assert words not in none.changed.model_dump_json() + none.stages[0].model_dump_json()
        assert words in shown.changed.model_dump_json() + shown.stages[0].model_dump_json()
    for words in ("purple", "orange", "beige", "say red", "question 2"):
        assert words not in page_of(none)
    assert none.changed.better == shown.changed.better
    assert none.stages[0].examined.findings


def test_personal_data_is_masked_and_long_texts_are_cut(tmp_path):
    run = finished(made_run(tmp_path))
    rows = scored([(0, 1)] * 30, base="write to jane.doe@gmail.com", tuned="word " * 1000)
    measured(run, rows)
    row = report(run).changed.improved[0]
    assert row.base == "write to [email]"
    assert row.tuned.startswith("word word")
    assert row.tuned.endswith("(5,000 characters in all)")
    assert len(row.tuned) < LONGEST + 50
    assert "jane" not in page_of(report(run))


@pytest.mark.parametrize("text", ["", "a\n\tb", "東京 🙂", "x" * LONGEST])
def test_a_text_that_can_be_shown_stays_as_it_is(text):
    assert shown_text(text) == text


def test_letters_that_are_not_seen_are_replaced():
    assert shown_text("a\u202eb\x00c\ud800") == "a\ufffdb\ufffdc\ufffd"


@pytest.mark.parametrize(
    ("ending", "words", "status"),
    [
        (None, "Broken off", "lost"),
        (Stopped(step=2, reason="as asked", adapter=None), "Stopped before its end", "stopped"),
        (Failed(message="the loss is not finite"), "Failed", "failed"),
    ],
)
def test_a_run_that_did_not_finish_has_a_card(tmp_path, ending, words, status):
    run = begun(made_run(tmp_path), steps=2)
    if ending:
        run.append(ending)
    card = report(run)
    assert (card.headline.words, card.headline.tone, card.status) == (words, "none", status)
    assert card.missing["result"] == "There is no result to measure yet."
    assert card.trained.steps == 2
    assert card.cost.training_seconds == 1
    assert card.cost.total_seconds is None
    assert any(status in limit for limit in card.limits)


def test_of_a_run_that_was_rolled_back_later_stages_count_no_more(tmp_path):
    data = DataSpec(rows=ROWS, heldout=4)
    stages = tuple(Stage(data=data, training=TrainConfig(steps=2), name=name) for name in ("first", "second"))
    run = finished(made_run(tmp_path, stages=stages))
    run.append(StageDone(step=2, stage=0, restored_step=None))
    run.append(RolledBack(step=2, stage=0))
    card = report(run)
    assert card.cost.tokens == 200
    assert [stage.name for stage in card.stages] == ["first", "second"]


def test_answers_that_can_not_be_read_are_missing(tmp_path):
    run = finished(made_run(tmp_path))
    kept = measured(run, scored(SCORES))
    (run.path / kept.answers_file).write_text("no row of answers\n")
    card = report(run)
    assert card.changed is None
    assert card.missing["changed"].startswith("The answers are not kept row by row. `tunelab evaluate")
    assert card.report == kept


def test_plain_text_has_no_answers_to_compare(tmp_path):
    run = finished(made_run(tmp_path))
    kept = measured(run, scored(SCORES))
    kept.model_copy(update={"metrics": {}, "main_metric": None, "answers_file": None}).write(run.path / "report.json")
    card = report(run)
    assert card.changed is None
    assert (
        card.missing["changed"]
        == card.missing["baselines"]
        == ("The run learned plain text: there are no answers to compare.")
    )


def test_a_run_that_was_trained_and_measured_here(tiny):
    run = finetune(config(tiny, LoRA(r=4), steps=3))
    kept = evaluate(run, rows=4, max_new_tokens=6, questions=12, instructions=4)
    card = report(run)
    assert card.report == kept
    assert card.headline.sentence.rstrip(".") in kept.sentence
    assert card.changed.better + card.changed.worse + card.changed.same == 4
    assert card.trained.base_published_as
    assert card.trained.trainable_parameters == run.progress().started.trainable_parameters
    assert card.cost.result_bytes == (run.adapter_path / "adapter_model.safetensors").stat().st_size
    assert card.stages[0].examined.rows == run.progress().started.train_rows[0]
    text = Read(page_of(card)).text
    for baseline in kept.baselines:
        assert baseline.name in text
    assert f"{kept.heldout_loss.tuned:.3f}" in text


def test_its_commands_repeat_what_was_done(tmp_path):
    run = finished(made_run(tmp_path, technique=LoRA(r=3)))
    asked = {"system": "-x 'kind'; $(rm)", "examples": "3", "metric": "my metric.py", "against": "a b; $(rm)"}
    asked |= {"stage": "1", "x; rm": "unknown"}
    measured(run, scored(SCORES), max_new_tokens=9, data="it's <b> $(rm).csv", asked=asked)
    repeat = report(run).repeat
    assert repeat.commands[0] == "tunelab train run.yaml"
    options = build_parser().parse_args(shlex.split(repeat.commands[1])[1:])
    assert (options.rows, options.max_new_tokens, options.questions, options.instructions) == (60, 9, 0, 7)
    assert options.data == "it's <b> $(rm).csv"
    assert (options.system, options.examples, options.metric) == ("-x 'kind'; $(rm)", 3, "my metric.py")
    assert (options.against, options.stage) == (["a", "b;", "$(rm)"], 1)
    written = yaml.safe_load(repeat.configuration)
    assert written["technique"] == {"kind": "lora", "r": 3}
    assert written["stages"][0]["data"]["rows"] == "16 rows in memory, not included"


def test_of_an_adapter_made_elsewhere_nothing_is_made_up(tiny, tmp_path):
    path = export_adapter(finetune(config(tiny, LoRA(r=4), steps=2)), tmp_path / "a.zip").path
    run = import_adapter(path, ModelSpec(repo_id=tiny, dtype="float32"))
    card = report(run)
    assert (card.stages, card.curves, card.repeat.commands) == ((), (), ())
    assert (card.trained.imported_from, card.trained.device, card.trained.heldout_loss) == ("a.zip", None, None)
    assert {one.group for one in card.settings} == {"model", "technique"}
    assert "which rows it was trained on is not known" in Read(page_of(card)).text


def test_the_files_are_the_card(tmp_path):
    run = finished(made_run(tmp_path / "runs"))
    measured(run, scored(SCORES))
    out = tmp_path / "new folder" / "tickets.html"
    card = report(run.id, out=out, root=tmp_path / "runs")
    assert RunCard.model_validate_json(out.with_suffix(".json").read_text()) == card
    assert out.read_text().strip().startswith("<!doctype html>")
    assert report(run, out=out).run == run.id  # a card is written anew
    assert json.loads(out.with_suffix(".json").read_text())["format"] == "tunelab run card 1"


def test_no_file_that_is_no_card_is_overwritten(tmp_path):
    run = finished(made_run(tmp_path / "runs"))
    for name in ("mine.html", "other.json"):
        (tmp_path / name).write_text("mine")
    for out in ("mine.html", "other.html"):
        with pytest.raises(UserError, match="is no card, and is not overwritten"):
            report(run, out=tmp_path / out)
    assert (tmp_path / "mine.html").read_text() == (tmp_path / "other.json").read_text() == "mine"
    assert not (tmp_path / "other.html").exists()
    with pytest.raises(UserError, match="can't be written: File name too long"):
        report(run, out=tmp_path / f"{'n' * 300}.html")
    with pytest.raises(UserError, match=r"ends with \.html"):
        report(run, out=tmp_path / "card.pdf")
    with pytest.raises(UserError, match="rows = -1: of each kind 0 to 100"):
        report(run, rows=-1)


def test_on_the_command_line(tmp_path, capsys):
    run = finished(made_run(tmp_path))
    measured(run, scored(SCORES))
    assert main(["report", "tickets", "--runs", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Better. +31 points won")
    assert str(run.path / "card.html") in printed
    assert (run.path / "card.json").is_file()
    assert main(["report", "nobody", "--runs", str(tmp_path)]) == 2
    assert "There is no run 'nobody'" in capsys.readouterr().err
