"""The method ladder: complete, resumable, honest about what was skipped or stays at the base's level."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from tests.helpers import ROWS
from tests.test_cli import CLI
from tunelab import DataSpec, Ladder, LadderConfig, ModelSpec, UserError, climb, list_ladders, read_report
from tunelab.cli import main
from tunelab.measure.known import bases_folder
from tunelab.measure.ladder import PAGE_FILE, RESULTS_FILE, RUNGS
from tunelab.measure.pages import ladder_chart, ladder_columns, ladder_page, ladder_table, verdicts
from tunelab.run.deleting import delete_run, restore_run
from tunelab.run.reports import Compared, CutAnswers, Interval, Report


def config(tiny, *techniques, **settings):
    # prefix and prompt need no more tokens than the rows have
    asked = {"steps": 2, "batch_size": 4, "rows": 4, "max_new_tokens": 4, "instructions": 4, **settings}
    return LadderConfig(
        model=ModelSpec(repo_id=tiny, dtype="float32"),
        data=DataSpec(rows=ROWS, heldout=4),
        techniques=techniques,
        **asked,
    )


def step_of(rung) -> int:
    """The step a rung trains in; 0 while it does anything else."""
    words = rung.message.split()
    return int(words[1]) if rung.status == "training" and words[0] == "step" else 0


def test_a_ladder_trains_measures_and_goes_on_where_it_was(tiny):
    ladder = Ladder.create(config(tiny, "qlora", "ia3"))
    seen = [(rung.name, rung.status) for rung in climb(ladder)]
    assert seen[-1] == ("ia3", "done")
    assert {name for name, _status in seen} == {"qlora", "ia3"}
    runs = [rung.run for rung in ladder.rungs()]
    for rung in ladder.rungs():
        assert rung.report.rows == 4
        assert rung.trainable_parameters > 0
        assert rung.result_bytes > 0
        assert rung.peak_memory_bytes > 1e8
        assert rung.seconds > 0
    with closing(sqlite3.connect(bases_folder(ladder.run_of("ia3")) / "known.sqlite")) as file:
        ((kept,),) = file.execute("SELECT count(*) FROM known")
    # of each precision of the base once: the losses of the rows and of the probe, and the answers
    assert kept == 2 * (4 + 4 + 4)
    assert [one.id for one in list_ladders()] == [ladder.id]

    results = json.loads((ladder.path / RESULTS_FILE).read_text())
    assert [rung["status"] for rung in results["rungs"]] == ["done", "done"]
    assert results["rungs"][0]["report"]["heldout_loss"]["tuned"] > 0

    again = Ladder.create(config(tiny, "qlora", "ia3"), ladder.path)
    assert [rung.status for rung in climb(again)] == ["done", "done"]
    assert [rung.run for rung in again.rungs()] == runs
    ladder.report_path("qlora").unlink()
    assert [rung.status for rung in climb(again) if rung.name == "qlora"][-1] == "done"
    assert [rung.run for rung in again.rungs()] == runs

    with pytest.raises(UserError, match=r"other settings\. Give another --out"):
        Ladder.create(config(tiny, "qlora", "ia3", steps=3), ladder.path)

    before = ladder_table(ladder)
    delete_run(ladder.run_of("qlora"))
    assert [rung.status for rung in ladder.rungs()] == ["deleted", "done"]
    assert "deleted: restore its run, or go on to train it anew" in str(ladder_table(ladder))
    restore_run(runs[0])
    assert ladder_table(ladder) == before
    delete_run(ladder.run_of("qlora"))
    assert [rung.status for rung in climb(ladder)][-1] == "done"
    assert ladder.rung("qlora").run not in runs


def test_a_rung_that_can_not_run_is_skipped_with_its_reason_and_the_rest_runs(tiny, monkeypatch):
    from tunelab import FullFineTuning, LoRA

    monkeypatch.setitem(RUNGS, "full", (FullFineTuning(), "nf4"))
    monkeypatch.setitem(RUNGS, "lora", (LoRA(r=500), "none"))
    ladder = Ladder.create(config(tiny, "full", "lora", "ia3"))
    list(climb(ladder))
    full, lora, ia3 = ladder.rungs()
    assert (full.status, lora.status) == ("skipped", "failed")
    assert "can't train a base quantised to nf4" in full.message
    assert "r = 500 is above the size of" in lora.message
    assert ia3.status == "done"
    assert "can&#39;t train a base quantised" in (ladder.path / PAGE_FILE).read_text()


def test_a_stopped_ladder_says_so_and_goes_on(tiny):
    ladder = Ladder.create(config(tiny, "lora", "ia3", steps=4000))
    for rung in climb(ladder):
        if step_of(rung) > 0:
            ladder.request_stop()
    lora, ia3 = ladder.rungs()
    assert lora.status == "stopped"
    assert ia3.status == "waiting"
    assert not ladder.is_alive
    steps = ladder.run_of("lora").progress().step
    for rung in climb(ladder):
        if step_of(rung) > steps + 20:
            break  # it goes on, and leaving the loop stops the training
    assert ladder.run_of("lora").status == "stopped"
    assert ladder.run_of("lora").progress().step < 4000
    assert not ladder.is_alive


def test_a_ladder_that_is_stopped_while_its_first_run_is_starting_stops(tiny):
    ladder = Ladder.create(config(tiny, "lora", steps=100_000))
    list(climb(ladder, should_stop=lambda: True))
    run = ladder.run_of("lora")
    assert run.status == "stopped"
    assert run.progress().step < 1000
    assert not run.stop_requested


def test_a_worker_that_is_killed_leaves_a_rung_that_says_so(tiny):
    import psutil

    ladder = Ladder.create(config(tiny, "lora", "ia3", steps=4000))
    for rung in climb(ladder):
        if rung.name == "ia3":
            break
        if step_of(rung) > 0:
            for child in psutil.Process().children(recursive=True):
                if "tunelab.worker" in " ".join(child.cmdline()):
                    child.kill()
    lora = ladder.rungs()[0]
    assert lora.status == "failed"
    assert "ended by signal 9; often the machine has too little memory" in lora.message


def test_other_rows_are_another_ladder(tiny, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS))
    asked = config(tiny, "ia3").model_copy(update={"data": DataSpec(source=str(path), heldout=4)})
    ladder = Ladder.create(asked)
    list(climb(ladder))
    path.write_text("\n".join(json.dumps(row) for row in ROWS[1:]))
    with pytest.raises(UserError, match="has changed since it began"):
        list(climb(Ladder(ladder.path)))
    assert ladder.rung("ia3").status == "done"


def test_one_process_climbs_a_ladder_and_the_one_that_comes_too_late_disturbs_nothing(tiny):
    ladder = Ladder.create(config(tiny, "ia3"))
    climbing = climb(ladder)
    next(climbing)
    late = [sys.executable, "-m", "tunelab.measure.climb", str(ladder.path)]
    result = subprocess.run(late, capture_output=True, text=True)
    assert result.returncode == 2
    assert "is being climbed by another process" in result.stderr
    assert ladder.is_alive
    climbing.close()
    assert not ladder.is_alive


def test_a_ladder_whose_process_was_killed_can_be_gone_on_with_at_once(tiny):
    ladder = Ladder.create(config(tiny, "ia3"))
    process = subprocess.Popen([sys.executable, "-m", "tunelab.measure.climb", str(ladder.path)])
    while not ladder.is_alive:
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert next(climb(ladder))


def test_two_presses_start_one_climber(tiny, tmp_path):
    from playground.jobs import Jobs
    from playground.owners import Caller

    ladder = Ladder.create(config(tiny, "ia3"), root=tmp_path)
    told = tmp_path / "told"
    jobs = Jobs(tmp_path, climber=[sys.executable, "-c", f"open({str(told)!r}, 'a').write('.')"])
    with ThreadPoolExecutor(8) as presses:
        asked = [presses.submit(jobs.climb, ladder, Caller.server()) for _ in range(8)]
    refused = [press.exception() for press in asked if press.exception()]
    assert len(refused) == 7
    assert all("is being climbed already" in str(error) for error in refused)
    while not told.is_file():
        time.sleep(0.1)
    time.sleep(0.5)
    assert told.read_text() == "."


def measured(low, value, high):
    return Compared(base=10.0, tuned=10.0 + value, change=Interval(value, low, high, 50))


def test_a_difference_that_may_be_chance_is_not_called_one():
    assert measured(-1, 2, 5).verdict == "not enough evidence"
    assert measured(1, 2, 3).verdict == "better"
    assert measured(-3, -2, -1).verdict == "worse"
    few = measured(1, 2, 3).change
    assert Compared(base=1, tuned=3, change=Interval(few.value, few.low, few.high, 8)).verdict == "not enough evidence"
    assert measured(1, 2, 3).model_copy(update={"higher_is_better": False}).verdict == "worse"


def test_the_table_says_so_where_a_technique_stays_at_the_bases_level(tiny):
    ladder = Ladder.create(config(tiny, "ia3"))
    list(climb(ladder))
    flat = measured(-1, 0.1, 1)
    path = ladder.report_path("ia3")
    report = read_report(path).model_copy(update={"metrics": {"chrf": flat}, "main_metric": "chrf",
        "heldout_loss": flat.model_copy(update={"higher_is_better": False})})  # fmt: skip
    report.write(path)
    base, row = ladder_table(ladder)
    assert base[0] == "Base (not quantised)"
    assert row[-1] == "not clearly different from the base; its held-out loss is not clearly lower"
    page = ladder_page(ladder)
    assert "not clearly different from the base" in page
    assert not re.search(r"https?://(?!www\.w3\.org)", page)  # it opens without a network
    assert re.search('role="img"[^>]* aria-label="chrF', ladder_chart(ladder))
    # the interval stands beside what it is of
    cells = dict(zip(ladder_columns(ladder), row, strict=True))
    assert (cells["chrF"], cells["Gain [95 %]"]) == ("10.1", "+0.1 [-1.0, +1.0]")
    change = report.general_loss.change
    assert cells["Forgetting [95 %]"] == f"{change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
    # and whose answers were cut
    report.model_copy(update={"cut_answers": CutAnswers(base=3, tuned=2)}).write(path)
    told = "Answers cut at 4 tokens, and scored as far as they go: base (not quantised) 3, IA³ 2."
    assert told in ladder_page(ladder)
    report.model_copy(update={"cut_answers": CutAnswers()}).write(path)
    assert "Answers cut" not in ladder_page(ladder)


def test_of_nine_techniques_one_that_looks_better_by_luck_is_not_called_better():
    lucky = Compared(base=10.0, tuned=12.0, change=Interval(2.0, 0.1, 5.0, 50, 0.03))
    flat = Compared(base=10.0, tuned=12.0, change=Interval(2.0, -1.0, 5.0, 50, 0.5))
    loss = measured(1, 2, 3)

    def report(main):
        figures = {"metrics": {"chrf": main}, "main_metric": "chrf", "heldout_loss": loss, "general_loss": loss}
        return Report(rows=50, probe_rows=1, seconds=1, **figures)

    assert verdicts([report(lucky)]) == ["better than the base"]
    said = verdicts([report(lucky), *[report(flat)] * 8])
    assert said[0] == "not clearly different from the base, as one of 9 judged at once"
    assert said[1:] == ["not clearly different from the base"] * 8
    sure = lucky.model_copy(update={"change": Interval(2.0, 1.0, 3.0, 50, 0.001)})
    assert verdicts([report(sure), *[report(flat)] * 8])[0] == "better than the base"
    without_a_test = measured(1, 2, 3)
    assert verdicts([report(without_a_test), report(flat)])[0] == "better than the base"


def test_on_the_command_line(tiny, tmp_path, capsys):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps(row) for row in ROWS))
    command = f"ladder --data {rows} --heldout 4 --model {tiny} --dtype float32 --techniques ia3 --budget-steps 2"
    command = [
        *command.split(),
        "--rows",
        "4",
        "--max-new-tokens",
        "4",
        "--instructions",
        "4",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "IA³: done" in printed
    assert "Table and chart:" in printed
    assert (tmp_path / "out" / PAGE_FILE).is_file()
    assert main([*command[:-2], "--techniques", "lora,nothing"]) == 2
    assert "there are no techniques nothing; allowed: all, full, lora" in capsys.readouterr().err


def test_help_names_every_rung():
    result = subprocess.run([*CLI, "ladder", "--help"], capture_output=True, text=True, check=True)
    assert all(name in result.stdout.replace("\n", " ") for name in RUNGS)
