"""A measurement as a process of its own: it waits for its turn, says how far it is, stops and goes on."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from tests.measure.card.made import finished, made_run
from tests.train.test_loop import config
from tunelab import Run, UserError, finetune, read_report
from tunelab.measure.measurement import Measurement, Standing, main
from tunelab.measure.settings import Measuring
from tunelab.run.turn import Turn

FEW = Measuring(rows=4, max_new_tokens=4, questions=6, instructions=4)


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    return finetune(config(tiny, steps=2), root=tmp_path_factory.mktemp("runs"))


def told(measurement, monkeypatch):
    """Everything it says of how far it is."""
    said: list[Standing] = []
    tell = measurement._tell
    monkeypatch.setattr(measurement, "_tell", lambda standing: (said.append(standing), tell(standing)))
    return said


@pytest.mark.parametrize(
    "more",
    [{}, {"system": "Be short.", "examples": 1, "safety": True}, {"memorisation": True}],
    ids=["plain", "beside", "memorisation"],
)
def test_it_measures_what_was_asked_and_its_last_part_is_the_last_it_announced(trained, monkeypatch, more):
    measurement = Measurement(trained)
    settings = Measuring(**{**FEW.__dict__, **more})
    measurement.ask(settings)
    assert measurement.standing().state == "waiting"
    said = told(measurement, monkeypatch)
    assert measurement.carry_out() == 0
    report = read_report(trained.path)
    assert report.rows == 4
    assert report.max_new_tokens == 4
    assert report.ability.questions == 6
    assert (report.safety is not None, report.memorisation is not None) == (settings.safety, settings.memorisation)
    parts = [one for one in said if one.state == "measuring"]
    assert {one.parts for one in parts} == {parts[-1].part}
    shares = [one.share for one in parts]
    assert shares == sorted(shares)
    assert len({one.rows for one in parts}) == 1  # as many as it announced
    done = [one.rows_done for one in parts]
    assert done == sorted(done)
    assert measurement.standing().state == "done"
    assert not measurement.is_alive


def test_it_waits_while_a_run_trains_and_a_training_waits_for_it(trained):
    other = Run.create(trained.config, trained.root)
    turn, measurement = Turn(other), Measurement(trained)
    assert turn.come()
    other.beat()
    measurement.ask(FEW)
    process = threading.Thread(target=measurement.carry_out)
    process.start()
    until(lambda: other.id in measurement.standing().message)
    assert measurement.standing().state == "waiting"
    turn.close()
    other.end_beat()
    process.join()
    assert measurement.standing().state == "done"
    with measurement.beating():
        assert Turn(trained).come()
        assert Turn(other).awaited == f"waiting until {trained.id} is measured: that takes all cores as well"


def test_it_is_stopped_where_it_is_and_goes_on(trained):
    measurement = Measurement(trained)
    measurement.ask(FEW)
    (trained.path / "report.json").unlink(missing_ok=True)
    measurement.request_stop()
    assert measurement.carry_out() == 130
    assert measurement.standing().state == "stopped"
    assert read_report(trained.path) is None
    measurement.again()
    assert measurement.carry_out() == 0
    assert read_report(trained.path).rows == 4


def test_it_stops_where_the_interrupt_gets_lost(trained, monkeypatch):
    monkeypatch.setattr("tunelab.measure.measurement._thread.interrupt_main", lambda: None)
    measurement = Measurement(trained)
    measurement.ask(FEW)
    measurement.request_stop()
    assert measurement.carry_out() == 130


def test_a_process_that_was_started_in_the_background_is_stopped_as_well(trained):
    measurement = Measurement(trained)
    measurement.ask(FEW)
    measurement.request_stop()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert main([str(trained.path)]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert measurement.standing().state == "stopped"


def test_one_that_fails_says_why(trained):
    measurement = Measurement(trained)
    measurement.ask(Measuring(**{**FEW.__dict__, "by": "likelihood"}))
    assert measurement.carry_out() == 2
    assert measurement.standing().state == "failed"
    assert "no labels" in measurement.standing().message


def test_what_cannot_be_asked_is_refused_before_a_process_starts(tmp_path):
    waiting, done = made_run(tmp_path), finished(made_run(tmp_path, name="done"))
    with pytest.raises(UserError, match="no adapter yet"):
        Measurement(waiting).ask(FEW)
    with pytest.raises(UserError, match="rows = 1"):
        Measurement(done).ask(Measuring(rows=1))
    with pytest.raises(UserError, match="with itself"):
        Measurement(done).ask(FEW, [Run(done.path)])
    with pytest.raises(UserError, match="Nobody has asked"):
        Measurement(done).again()
    Measurement(done).ask(FEW)
    with pytest.raises(UserError, match="is being measured already"):
        Measurement(done).ask(FEW)


def test_one_whose_process_is_gone_is_lost_and_damaged_files_are_none(tmp_path):
    measurement = Measurement(finished(made_run(tmp_path)))
    measurement.ask(FEW)
    measurement.end_beat()
    assert measurement.standing().state == "lost"
    (measurement.path / "standing.json").write_text("{")
    (measurement.path / "request.json").write_text("[]")
    assert measurement.standing() is None
    assert measurement.request() is None


def until(condition, seconds=60):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "waited too long"
        time.sleep(0.05)
