"""A sweep: the same run with several seeds on the same rows, and a verdict that counts how much they differ."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from tests.helpers import ROWS
from tests.techniques.test_invariants import spec_of
from tunelab import (
    IA3,
    DataSpec,
    LoRA,
    Run,
    RunConfig,
    Stage,
    Sweep,
    SweepConfig,
    TrainConfig,
    UserError,
    climb,
    evaluate,
    list_sweeps,
)
from tunelab.cli import main
from tunelab.measure.answered import read_rows
from tunelab.measure.metrics import ChrF
from tunelab.measure.statistics import Measured, judge_all
from tunelab.measure.sweep import verdicts


def run_config(tiny, technique=LoRA(r=4), **data):
    training = TrainConfig(steps=2, batch_size=4, learning_rate=0.01)
    stage = Stage(data=DataSpec(**({"rows": ROWS, "heldout": 4} | data)), training=training)
    return RunConfig(name="mine", model=spec_of(tiny), technique=technique, stages=(stage,))


def config(tiny, **settings):
    return SweepConfig(
        **{"run": run_config(tiny), "seeds": (0, 1), "rows": 4, "instructions": 4, "max_new_tokens": 4} | settings
    )


def test_settings_are_those_named_each_with_every_seed(tiny):
    asked = config(tiny, learning_rates=(0.0001, 2e-5), ranks=(2, 16))
    assert asked.settings == ["lr=0.0001 r=2", "lr=0.0001 r=16", "lr=2e-05 r=2", "lr=2e-05 r=16"]
    assert len(asked.names) == 8
    found = {
        (one.stages[0].training.learning_rate, one.technique.r, one.stages[0].training.seed)
        for one in map(asked.run_config, asked.names)
    }
    assert found == {(rate, rank, seed) for rate in (0.0001, 2e-5) for rank in (2, 16) for seed in (0, 1)}
    plain = config(tiny)
    assert [one.stages[0].training.learning_rate for one in map(plain.run_config, plain.names)] == [0.01, 0.01]
    # the rows are divided alike
    assert len({one.stages[0].data.seed for one in map(asked.run_config, asked.names)}) == 1


def test_it_trains_measures_judges_over_all_seeds_and_goes_on_where_it_was(tiny, tmp_path):
    sweep = Sweep.create(config(tiny), tmp_path / "sweep")
    first = next(rung for rung in climb(sweep) if rung.status == "done")
    assert first.name == "as configured seed=0"
    assert [rung.status for rung in sweep.rungs()] == ["done", "waiting"]
    runs = [rung.run for rung in sweep.rungs()][:1]
    again = Sweep.create(config(tiny), sweep.path)
    assert [rung.status for rung in climb(again)][-1] == "done"
    assert [rung.run for rung in again.rungs()][:1] == runs

    (swept,) = verdicts(again)
    reports = [rung.report for rung in again.rungs()]
    assert [run.report for run in swept.runs] == reports
    assert swept.verdict.runs == pytest.approx([report.metrics["chrf"].tuned for report in reports])
    assert reports[0].metrics["chrf"].tuned != reports[1].metrics["chrf"].tuned  # other seeds learn otherwise
    assert "4 rows, 2 runs" in swept.verdict.sentence
    # by hand, from the answers
    rows = [read_rows(again.root / rung.run / rung.report.answers_file) for rung in again.rungs()]
    assert [row.prompt for row in rows[0]] == [row.prompt for row in rows[1]]
    wanted = [row.reference for row in rows[0]]
    base, one, two = (
        ChrF().sums(side, wanted)
        for side in ([r.base for r in rows[0]], [r.tuned for r in rows[0]], [r.tuned for r in rows[1]])
    )
    (expected,) = judge_all([Measured("chrF", "points", base, one, ChrF().value, runs=(two,))])
    assert swept.verdict.change == expected.change
    # measured again otherwise, a run keeps the rows that the sweep's verdict is made of
    evaluate(Run(again.root / again.rungs()[0].run), rows=2, max_new_tokens=1, instructions=2, questions=0)
    assert verdicts(again) == [swept]

    with pytest.raises(UserError, match=r"holds a sweep with other settings\. Give another --out"):
        Sweep.create(config(tiny, seeds=(0, 1, 2)), sweep.path)


def test_on_the_command_line(tiny, tmp_path, capsys):
    file, rows = tmp_path / "run.yaml", tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps(row) for row in ROWS))
    file.write_text(run_config(tiny, rows=None, source=str(rows)).to_yaml())
    few = ["--rows", "4", "--max-new-tokens", "4", "--instructions", "4"]
    assert main(["sweep", str(file), "--seeds", "1", *few]) == 0
    printed = capsys.readouterr().out
    assert "as configured seed=0: done" in printed
    assert "as configured: not enough evidence: " in printed
    assert "one run" in printed
    (sweep,) = list_sweeps()
    assert main(["sweep", str(file), "--seeds", "1", *few, "--out", str(sweep.path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["verdict"]["sentence"] in printed
    assert main(["sweep", str(file), "--seeds", "0", *few]) == 2
    assert "--seeds 0: at least 1 is needed" in capsys.readouterr().err
    assert main(["sweep", str(tmp_path / "none.yaml")]) == 2
    assert "There is no file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seeds": (1, 1)}, "one stands there twice"),
        ({"ranks": (8, 8)}, "one stands there twice"),
        ({"seeds": tuple(range(60)), "ranks": (4, 8)}, "120 runs are asked for; at most 100"),
        ({"learning_rates": (-1.0,)}, "learning_rate"),
        ({"learning_rates": (1e-4, 1.0000001e-4)}, "two are the same to six digits"),
    ],
)
def test_what_can_not_be_is_refused_before_anything_is_trained(tiny, settings, words):
    with pytest.raises(ValidationError, match=words):
        config(tiny, **settings)


def test_ranks_are_for_techniques_that_have_one(tiny):
    with pytest.raises(ValidationError, match="ia3 has no rank"):
        config(tiny, run=run_config(tiny, IA3()), ranks=(4,))


def test_the_process_that_climbs_takes_a_sweep_for_a_sweep(tiny, monkeypatch):
    from tunelab.measure import climb as module

    sweep, seen = Sweep.create(config(tiny)), []
    monkeypatch.setattr(module, "climb", lambda series: seen.append(series) or iter(()))
    assert module.main([str(sweep.path), "--runs", str(sweep.root)]) == 0
    assert [(type(one), one.path, one.root) for one in seen] == [(Sweep, sweep.path, sweep.root)]
