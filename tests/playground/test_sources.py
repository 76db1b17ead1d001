"""Whoever opens the page reads no file of the server's machine, except who runs the server."""

from __future__ import annotations

import pytest

from playground.jobs import Jobs
from playground.owners import Caller
from tests.train.test_loop import config
from tunelab import DataSpec, LadderConfig, ModelSpec, Stage, TrainConfig, UserError

GUEST = Caller("a session", "a token")


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    made = Jobs(tmp_path / "runs")
    monkeypatch.setattr(made, "start_next", lambda: None)
    return made


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret.csv"
    path.write_text("prompt,completion\na,b\nc,d\n")
    return path


def asked(data=None, model=None, replay=None):
    stage = Stage(data=data or DataSpec(source="python-docs"), training=TrainConfig(), replay=replay)
    return config("starter").model_copy(
        update={"stages": (stage,), "model": model or ModelSpec(repo_id="starter"), "start_from": None}
    )


def reading(secret):
    return {
        "rows": asked(DataSpec(source=str(secret))),
        "held-out rows": asked(DataSpec(source="python-docs", heldout=str(secret))),
        "replayed rows": asked(replay=DataSpec(source=str(secret))),
        "a model": asked(model=ModelSpec(repo_id=str(secret.parent))),
        "a GGUF file": asked(model=ModelSpec(repo_id=str(secret.with_suffix(".gguf")))),
        "one from here that may be there": asked(model=ModelSpec(repo_id="models/secret.GGUF")),
        "by way of another folder": asked(DataSpec(source=f"{secret.parent}/runs/uploads/../../secret.csv")),
        "at home": asked(DataSpec(source="~/secret.csv")),
        "at nobody's home": asked(DataSpec(source="~nobody-of-this-name/secret.csv")),
        "from here": asked(DataSpec(source="../secret.csv")),
    }


@pytest.mark.parametrize("what", reading(__import__("pathlib").Path("/x/secret.csv")))
def test_a_guest_can_not_have_files_of_the_server_read(jobs, secret, what):
    with pytest.raises(UserError, match="on the server's machine") as refused:
        jobs.start(reading(secret)[what], GUEST)
    assert len(str(refused.value)) <= 400


def test_a_relative_name_that_is_a_file_here_is_one(jobs, secret, monkeypatch):
    monkeypatch.chdir(secret.parent)
    with pytest.raises(UserError, match="on the server's machine"):
        jobs.start(asked(DataSpec(source="secret.csv")), GUEST)


def test_a_link_out_of_the_uploads_leads_nowhere(jobs, secret):
    folder = jobs.root / "uploads"
    folder.mkdir(parents=True)
    (folder / "link.csv").symlink_to(secret)
    with pytest.raises(UserError, match="on the server's machine"):
        jobs.start(asked(DataSpec(source=str(folder / "link.csv"))), GUEST)


def test_a_ladder_is_no_way_around_it(jobs, secret):
    with pytest.raises(UserError, match="on the server's machine"):
        jobs.start_ladder(LadderConfig(model=ModelSpec(repo_id="starter"), data=DataSpec(source=str(secret))), GUEST)


def test_what_came_through_the_page_and_what_is_public_is_read(jobs, secret):
    kept = jobs.keep_upload(str(secret))
    for data in (DataSpec(source=kept), DataSpec(source="someone/data"), DataSpec(source="python-docs", heldout=0.1)):
        assert jobs.start(asked(data), GUEST).config.stages[0].data.source == data.source


def test_who_runs_the_server_reads_what_is_there(jobs, secret):
    for caller in (Caller.server(), Caller("a session", jobs.owners.key)):
        assert jobs.start(asked(DataSpec(source=str(secret))), caller)
