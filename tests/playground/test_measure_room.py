"""What the Measure room shows, without a browser: results, progress, and rows that bars choose; text stays text."""

from __future__ import annotations

import json
import sys
from inspect import isgeneratorfunction

import gradio as gr
import pytest

from playground import views
from playground.jobs import MEASURER, Jobs
from playground.live import Looks
from playground.owners import Caller
from playground.parts import measure_form
from playground.parts.shared import Shared
from playground.rooms import measure
from playground.views.changed import Choice
from tests.measure.card.made import Read, finished, made_run, measured
from tests.measure.changes.made import answered
from tunelab import Run, UserError, delete_run
from tunelab.measure.answered import write_rows
from tunelab.measure.measurement import Measurement, Standing
from tunelab.measure.settings import Measuring
from tunelab.run.reports import Counted, Memorisation, Safety

SERVER = Caller.server()

EVIL = '<img src=x onerror="alert(1)"> **bold** $x^2$ <|im_end|> \u202eabc & </button>'


def rows_of(count=60, text="answer"):
    return [
        answered(
            row, f"{text} no", f"{text} yes indeed", reference=f"{text} yes", prompt=f"{text} {row}",
            scores=(10.0 * (row % 3), 10.0 * (row % 5)), label=f"{text} {row % 2}", columns={text: f"{text} {row % 4}"},
            others={text: text}, other_scores={text: {"points": 5.0}},
        )
        for row in range(1, count + 1)
    ]  # fmt: skip


@pytest.fixture
def jobs(tmp_path):
    return Jobs(tmp_path)


@pytest.fixture
def run(tmp_path):
    return finished(made_run(tmp_path))


def presses(html):
    """What the buttons of a page lead to, by their keys."""
    return {at["data-key"]: Choice.of(at["data-press"]) for _tag, at in Read(html).elements if "data-press" in at}


def rows_in(html):
    return [text.removeprefix("row ") for text in Read(html).texts if text.startswith("row ")]


def test_text_of_rows_names_and_labels_is_shown_and_never_markup(jobs, tmp_path):
    run = finished(made_run(tmp_path, name=EVIL[:50]))
    measured(run, rows_of(text=EVIL), sentence=f"better: {EVIL}", notes=(EVIL,))
    pages = [views.result_html(jobs, run), views.beside_html(run, None), views.changed_html(run, Choice())]
    for page in map(Read, pages):
        assert not {"img", "script", "b", "strong"} & set(page.names)
        assert not [value for value in page.every("onerror") if value]
    shown = pages[2]
    for key, choice in presses(shown).items():
        if key.startswith(("label=", "column:")):
            assert rows_in(views.changed_html(run, choice)), key  # and a press on it still finds its rows
    assert EVIL.split("> ")[1].split(" <")[0] in Read(pages[0]).text


def test_the_result_says_the_verdict_first_and_lists_everybody_who_answered(jobs, run):
    measured(run, rows_of())
    page = Read(views.result_html(jobs, run))
    assert page.texts[:3] == ["▲", "Better", "+31 points won, 95 % interval 25 to 37, 300 rows, one run"]
    assert {"base", "answer", "tuned"} <= set(page.texts)
    assert any("tuned gains" in str(words) for words in page.every("aria-label"))


def test_a_run_measured_beside_another_stands_in_its_table(jobs, run, tmp_path):
    other = finished(made_run(tmp_path, name="the other one"))
    measured(other, rows_of())
    measured(run, rows_of(), asked={"against": f"{other.id} gone-since"})
    page = Read(views.result_html(jobs, run))
    assert "the other one" in page.texts
    assert "+0.0 [+0.0, +0.0]" in page.text


def test_what_was_looked_for_is_said_and_what_was_not_as_well(run):
    measured(run, rows_of())
    assert "Not looked for" in Read(views.beside_html(run, None)).text
    report = measured(run, rows_of())
    counted = Counted(base=10, tuned=2, of=20)
    found = Memorisation(
        rows=5, trained_loss=report.heldout_loss, heldout_loss=report.heldout_loss, continued_trained=counted,
        continued_heldout=counted, sentence="Rows come out.", echoes=counted,
    )  # fmt: skip
    measured(run, rows_of(), memorisation=found, safety=Safety(refused=counted, insulting=counted, p=0.01))
    text = Read(views.beside_html(run, None)).text
    assert "Rows come out." in text
    assert "Safety fell" in text
    assert "Not looked for" not in text


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda run: None, "Not measured yet"),
        (lambda run: (run.path / "report.json").write_text('{"rows": 3}'), "another version"),
    ],
    ids=["none", "older"],
)
def test_a_run_without_a_report_says_what_to_do(jobs, run, prepare, said):
    prepare(run)
    assert said in Read(views.result_html(jobs, run)).text
    assert not Read(views.beside_html(run, None)).texts
    assert not Read(views.changed_html(run, Choice())).texts


def test_no_run_and_a_run_without_a_result_say_what_is_missing(jobs, tmp_path):
    assert "Train one" in Read(views.result_html(jobs, None)).text
    assert "as soon as it has an adapter" in Read(views.result_html(jobs, made_run(tmp_path))).text


def test_a_report_whose_rows_are_gone_damaged_or_others_says_so(run):
    report = measured(run, rows_of())
    path = run.path / str(report.answers_file)
    write_rows(rows_of(40), path)
    assert "of another measurement than the figures above (60 rows)" in Read(views.changed_html(run, Choice())).text
    path.write_text("no row\n")
    assert "line 1" in Read(views.changed_html(run, Choice())).text
    path.unlink()
    assert "No answers are kept" in Read(views.changed_html(run, Choice())).text


def test_rows_without_any_score_say_that_there_is_nothing_to_filter_by(run):
    report = measured(run, rows_of())
    write_rows([answered(1), answered(2)], run.path / str(report.answers_file))
    assert "has a score" in Read(views.changed_html(run, Choice())).text


def test_pressing_a_bar_leaves_its_rows_and_a_chip_takes_it_back(run):
    rows = rows_of()
    measured(run, rows)
    whole = views.changed_html(run, Choice())
    one = presses(whole)["label=label = answer 0"]
    filtered = views.changed_html(run, one.change(rows=100))
    assert {int(row) for row in rows_in(filtered)} == {row.row for row in rows if row.label == "answer 0"}
    assert "30 of 60 rows" in Read(filtered).text
    pressed = [
        at["data-key"]
        for _tag, at in Read(filtered).elements
        if at.get("aria-pressed") == "true" and "=" in at["data-key"]
    ]
    assert pressed == ["label=label = answer 0"]
    assert presses(filtered)["chip-1"].filters == {}
    assert rows_in(views.changed_html(run, presses(filtered)["chip-1"])) == rows_in(whole)
    both = presses(filtered)["column:answer=answer = answer 2"]
    left = {int(row) for row in rows_in(views.changed_html(run, both.change(rows=100)))}
    assert left == {row.row for row in rows if row.label == "answer 0" and row.row % 4 == 2}


def test_more_rows_are_shown_when_asked_for_and_orders_differ(run):
    measured(run, rows_of())
    first = views.changed_html(run, Choice())
    assert len(rows_in(first)) == 10
    more = rows_in(views.changed_html(run, presses(first)["more"]))
    assert more[:10] == rows_in(first)
    assert len(more) == 20
    assert rows_in(views.changed_html(run, presses(first)["order-worsened"])) != rows_in(first)


def test_rules_are_read_in_a_second_step(run):
    measured(run, [answered(n, "", "yes", scores=(0, 1)) for n in range(30)])
    assert views.rules_wait(run, Choice())
    assert "being read" in Read(views.changed_html(run, Choice(), rules=False)).text
    assert "no answer" in Read(views.changed_html(run, Choice())).text
    assert not views.rules_wait(run, Choice())


def test_a_row_is_found_by_its_place_and_no_other(run):
    measured(run, rows_of(3))
    assert [views.row_of(run, place).row for place in range(3)] == [1, 2, 3]
    assert views.row_of(run, 3) is views.row_of(run, -1) is None


@pytest.mark.parametrize("written", ["", "[]", "null", '{"filters": 3}', '{"rows": "many"}', '{"filters": {"a": 1}}'])
def test_a_press_that_is_not_understood_shows_all_rows(written):
    assert Choice.of(written) == Choice()


def test_a_choice_survives_its_button():
    choice = Choice("points", {"label": (EVIL, "x")}, "worsened", 40)
    assert Choice.of(choice.written) == choice
    assert choice.toggled("label", "x").filters == {"label": (EVIL,)}
    assert choice.toggled("label", "x").toggled("label", EVIL).filters == {}


# measuring


def test_the_runs_that_can_be_measured_beside_it_are_those_that_are_there(jobs, run, tmp_path):
    with gr.Blocks() as page:
        given = gr.Tabs(), gr.State(None), gr.State(None), gr.Button()
        measure.build(Shared(page, jobs, None, *given))
    stand = next(one.fn for one in page.fns.values() if one.name == "stand" and isgeneratorfunction(one.fn))
    against = next(one for one in page.blocks.values() if one.elem_id == "measure-against")

    def there(before, asked):
        """What is remembered of this look, what can be chosen, and what of it is not any more."""
        first = next(stand(run.id, before, asked))
        (seen,) = [value for component, value in first.items() if isinstance(component, gr.State)]
        return seen, [identity for _label, identity in first[against]["choices"]], first[against].get("value"), first

    other = finished(made_run(tmp_path, name="other"))
    seen, choices, chosen, _first = there(None, None)
    assert (choices, chosen) == ([other.id], None)
    third = finished(made_run(tmp_path, name="third"))
    seen, choices, chosen, first = there(seen, [other.id])
    assert set(choices) == {other.id, third.id}
    assert chosen is None
    assert len(first) == 2  # nothing else of the page is touched
    delete_run(other)
    _seen, choices, chosen, _first = there(seen, [other.id, third.id])
    assert choices == chosen == [third.id]


def test_the_app_starts_the_process_that_measures_and_pages_hear_of_it(tmp_path, run):
    jobs = Jobs(tmp_path, measurer=(sys.executable, "-c", "import sys; print(sys.argv[1])"))
    before = jobs.moment()
    jobs.measure(run, Measuring(rows=7), (), SERVER)
    assert Measurement(run).request().settings.rows == 7
    asked = jobs.moment()
    assert asked != before
    part = Looks(jobs).look(run.id, "", {"measuring": ""})["parts"]["measuring"][1]
    assert "Waiting" in part
    Measurement(run).end_beat()
    assert "What was answered is kept" in views.measuring_html(jobs, run)
    jobs.measure_on(run, SERVER)
    with pytest.raises(UserError, match="already"):
        jobs.measure_on(run, SERVER)
    jobs.stop_measuring(run, SERVER)
    assert (Measurement(run).path / "stop").exists()
    measured(run, rows_of())
    assert jobs.moment() != asked


def test_how_far_a_measurement_is_stands_in_rows_of_all_rows_with_the_time_that_is_left(run):
    measurement = Measurement(run)
    measurement.path.mkdir()
    measurement.beat()
    far = {"part": 2, "parts": 8, "rows_done": 300, "rows": 1340, "share": 0.25}
    measurement._tell(Standing(state="measuring", message="reading", **far))
    assert "part 2 of 8: 300 of 1,340 rows in all" in Read(views.measuring_html(None, run)).text
    measurement._tell(Standing(state="measuring", message="reading", **far, seconds_left=200))
    page = Read(views.measuring_html(None, run))
    assert "part 2 of 8: 300 of 1,340 rows in all, about 3 min left" in page.text
    assert "0.250" in page.every("value")


def test_what_went_wrong_is_told_in_the_words_of_the_form(run):
    measurement = Measurement(run)
    measurement.path.mkdir()
    measurement._tell(Standing(state="failed", message="no labels. Measure by written answers: --by answer."))
    text = Read(views.measuring_html(None, run)).text
    assert "no labels. Choose written answers" in text
    assert "--" not in text


def test_the_program_that_measures_is_there():
    assert MEASURER[-1] == "tunelab.measure.measurement"


def test_the_form_as_it_stands_measures_as_the_command_does_and_says_what_is_empty():
    with gr.Blocks():
        values = {name: widget.value for name, widget in measure_form.lay_out().items()}
    assert measure_form.settings(values) == Measuring()
    assert measure_form.settings({**values, "ability": False, "system": " Be brief. "}) == Measuring(
        questions=0, system="Be brief."
    )
    with pytest.raises(UserError, match="Rows is empty"):
        measure_form.settings({**values, "rows": None})


def test_other_seeds_are_trained_beside_the_run_itself(tmp_path, run):
    jobs = Jobs(tmp_path, climber=(sys.executable, "-c", ""))
    sweep = jobs.start_sweep(run, SERVER, rows=50)
    assert sweep.config.rows == 50
    assert sweep.config.seeds == (0, 1, 2)
    assert [found.id if (found := sweep.run_of(name)) else None for name in sweep.config.names] == [run.id, None, None]
    assert jobs.sweep_of(Run(run.path)).id == sweep.id
    measured(run, rows_of())
    assert (
        "seed=0" in Read(views.beside_html(run, sweep)).text
        or "One of 3 runs" in Read(views.beside_html(run, sweep)).text
    )
    assert json.loads((sweep.path / "sweep.json").read_text())["format"] == 1


def test_a_run_that_has_not_finished_has_no_other_seeds(tmp_path):
    with pytest.raises(UserError, match="other seeds"):
        Jobs(tmp_path).start_sweep(made_run(tmp_path), SERVER)
