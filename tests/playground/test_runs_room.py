"""The Runs room without a browser: what its list, its pictures and its exports say, and to whom."""

from __future__ import annotations

import io
import json
import sys
import time
import zipfile
from pathlib import Path
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from playground import exports, live, take, views
from playground.exports import KINDS, Exports
from playground.jobs import Jobs
from playground.live import Looks
from playground.owners import Caller
from tests.measure.test_pages import Read
from tests.train.test_loop import config
from tunelab import FullFineTuning, PrefixTuning, Run, UserError, as_command, as_notebook, export_adapter, finetune
from tunelab.measure.measurement import Measurement
from tunelab.run.events import Evaluated, Failed, Started

HOSTILE = "<img src=x onerror=alert(1)> **b** $x$ <|im_end|>"
ANNA, BEN, SERVER = Caller(session="anna's"), Caller(session="ben's"), Caller.server()
# says one line, then makes what it is asked for
MAKES = "import sys, pathlib; print('loading'); pathlib.Path(sys.argv[sys.argv.index('--out') + 1]).write_text('made')"
FAILS = "import sys; print('merging'); sys.exit('tunelab: it does not fit <b>here</b>')"


@pytest.fixture
def jobs(tmp_path) -> Jobs:
    return Jobs(tmp_path / "runs", worker=(sys.executable, "-c", ""))


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory) -> Run:
    return finetune(config(tiny).model_copy(update={"name": "tickets"}), root=tmp_path_factory.mktemp("runs"))


def made(jobs, tiny, name="", **changes) -> Run:
    """A run that trains when its turn comes."""
    given = config(tiny, **changes).model_copy(update={"name": name or None})
    return Run.create(given, jobs.root)


def started(sha: str = "a" * 64) -> Started:
    facts = dict.fromkeys(("device", "dtype", "quantization", "attention"), "cpu")
    return Started(
        **facts, fast=False, threads=1, base_sha256="b" * 64, trainable_parameters=1, total_parameters=2,
        steps_total=10, learning_rates=(1e-4,), train_rows=(12,), heldout_rows=(4,), data_sha256=(sha,),
    )  # fmt: skip


def measured(run, *losses, base=4.0, sha="a" * 64):
    run.append(started(sha))
    for step, loss in enumerate(losses, 1):
        figures = {"rows": 4, "scored_tokens": 40, "best": False, "seconds": 0.1}
        run.append(Evaluated(step=step, stage=0, heldout_loss=loss, base_loss=base, **figures))
    return run


def listed(html) -> list[str]:
    """Ids of the runs in a list, in its order."""
    return Read(html).every("data-choose")


# the list


def test_the_list_finds_what_the_command_line_finds_and_keeps_its_order(jobs, tiny):
    runs = [made(jobs, tiny, name) for name in ("one", "two", "three")]
    runs[1].label(tags=["good"])
    assert listed(views.runs_html(jobs, None)) == sorted((run.id for run in runs), reverse=True)
    assert listed(views.runs_html(jobs, None, ["newest", "tag:good"])) == [runs[1].id]
    assert listed(views.runs_html(jobs, None, ["oldest", ""])) == sorted(run.id for run in runs)
    assert listed(views.runs_html(jobs, None, ["name", ""])) == [runs[0].id, runs[2].id, runs[1].id]
    assert "1 of 3 runs fit" in views.runs_html(jobs, None, ["newest", "tag:good"])
    nothing = views.runs_html(jobs, None, ["newest", "status:paused"])
    assert listed(nothing) == []
    assert "None of 3 runs fits" in nothing


def test_the_list_by_loss_begins_with_the_lowest_and_ends_with_what_was_never_measured(jobs, tiny):
    never = made(jobs, tiny)
    low, high = (measured(made(jobs, tiny), loss) for loss in (1.5, 3.0))
    shown = views.runs_html(jobs, None, ["loss", ""])
    assert listed(shown) == [low.id, high.id, never.id]
    assert "4.00 → 1.50" in shown
    assert "−62\u00a0%" in shown  # (1.5 - 4) / 4


@pytest.mark.parametrize("asked", [[], ["nonsense"], ["newest"], ["", "", "", ""], ["__class__", "tag:"]])
def test_whatever_a_page_asks_for_gives_a_list(jobs, tiny, asked):
    run = made(jobs, tiny)
    assert listed(views.runs_html(jobs, run, asked)) == [run.id]


def test_of_many_runs_the_newest_hundred_stand_there_and_the_rest_is_told(jobs, tiny):
    given = {"format": 1, "config": config(tiny).model_dump(mode="json")}
    for number in range(230):
        folder = jobs.root / f"20260101-{number:06d}-run-{number:04x}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(given))
    shown = views.runs_html(jobs, None)
    ids = listed(shown)
    assert len(ids) == views.MOST_LISTED == 100
    assert ids[0].startswith("20260101-000229")
    assert "230 runs; the newest 100 of 230: search for others" in shown
    assert listed(views.runs_html(jobs, None, ["newest", "id:" + f"20260101-{3:06d}-run-{3:04x}"]))  # search finds all


def test_runs_that_cannot_be_read_are_listed_and_hurt_nobody(jobs, tiny):
    good = made(jobs, tiny)
    for name, content in (("20200101-000000-old-0000", '{"format": 99}'), ("20200101-000001-torn-0000", "{")):
        (jobs.root / name).mkdir()
        (jobs.root / name / "config.json").write_text(content)
        broken = Run(jobs.root / name)
        assert "unreadable" in views.about_html(jobs, broken)
        assert "data-take" not in views.take_html(jobs, broken)
        assert listed(views.picked_html(jobs, None, [name, good.id])) == [good.id]
    shown = views.runs_html(jobs, good)
    assert len(listed(shown)) == 3
    assert shown.count("unreadable") >= 2


def test_labels_are_text_wherever_a_run_is_shown(jobs, tiny):
    run, other = measured(made(jobs, tiny), 2.0, 1.0), measured(made(jobs, tiny), 2.0, 1.5)
    run.label(name=HOSTILE, tags=["<b>tag</b>"], note="<script>alert(1)</script>")
    shown = [
        views.runs_html(jobs, run),
        views.picked_html(jobs, run, [run.id, other.id]),
        views.about_html(jobs, run),
        views.take_html(jobs, run),
    ]
    jobs.delete(run, SERVER)
    shown.append(views.deleted_html(jobs, None))
    for html in shown:
        assert not {"img", "script"} & set(Read(html).elements)
    assert HOSTILE in Read(shown[0]).texts
    assert "<b>tag</b>" in Read(shown[0]).texts
    assert HOSTILE in Read(shown[-1]).texts


def test_a_page_is_sent_the_list_it_asked_for(jobs, tiny, monkeypatch):
    monkeypatch.setattr(live, "LOOK_SECONDS", -1.0)
    run = made(jobs, tiny)
    run.label(tags=["a/b, c:d ~"])
    looks = Looks(jobs)
    name = "runs~newest/" + quote('tag:"a/b, c:d ~"', safe="")
    assert listed(looks.look("", "", {name: ""})["parts"][name][1]) == [run.id]
    none = "runs~newest/tag%3Anone"
    assert listed(looks.look("", "", {none: ""})["parts"][none][1]) == []
    assert looks.look("", "", {"nothing~x": "", "../runs": ""})["parts"] == {}
    assert len(looks.look("", "", {f"runs~newest/{n}": "" for n in range(500)})["parts"]) == live.MOST_ASKED


def test_a_page_sees_new_tags_a_new_export_and_what_was_deleted(jobs, tiny, monkeypatch):
    monkeypatch.setattr(live, "LOOK_SECONDS", -1.0)
    run, other = made(jobs, tiny), made(jobs, tiny)
    looks = Looks(jobs)
    have, key = dict.fromkeys(("runs", "about", "take", "deleted"), ""), ""

    def changed():
        nonlocal key
        looked = looks.look(run.id, key, have) or {"key": key, "parts": {}}
        key, parts = looked["key"], looked["parts"]
        have.update({name: part[0] for name, part in parts.items()})
        return set(parts)

    changed()
    assert changed() == set()
    run.label(tags=["new"])
    assert "runs" in changed()
    jobs.delete(other, SERVER)
    assert {"runs", "deleted"} <= changed()
    jobs.exports = Exports(jobs.root, (sys.executable, "-c", MAKES))
    jobs.exports.make(run, "card")
    assert "take" in changed()
    seen = ""
    end = time.time() + 30
    while 'data-take="card"' not in seen:  # … and that it is done
        assert time.time() < end
        if "take" in changed():
            seen = views.take_html(jobs, run)


# several runs


def test_curves_of_several_runs_stand_on_one_picture_with_the_base_they_share(jobs, tiny):
    one, two = measured(made(jobs, tiny, "one"), 3.0, 2.0), measured(made(jobs, tiny, "two", seed=5), 3.5, 1.0)
    shown = views.picked_html(jobs, None, [one.id, two.id])
    page = Read(shown)
    (values,) = page.every("data-values")
    lines = json.loads(values)["lines"]
    assert lines == {"base": [[0, 4], [2, 4]], "A": [[1, 3], [2, 2]], "B": [[1, 3.5], [2, 1]]}
    assert page.texts.index("one") < page.texts.index("two")
    assert "seed" in page.texts
    assert "name" not in page.texts[page.texts.index("Setting") :]
    assert "same held-out rows" not in shown


def test_runs_measured_on_other_rows_are_not_compared_in_silence(jobs, tiny):
    one, two = measured(made(jobs, tiny), 3.0), measured(made(jobs, tiny), 2.0, sha="c" * 64)
    assert "Not all of them were measured on the same held-out rows" in views.picked_html(jobs, None, [one.id, two.id])
    other_base = measured(made(jobs, tiny), 2.0, base=3.0)
    shown = views.picked_html(jobs, None, [one.id, other_base.id])
    assert "base" not in json.loads(Read(shown).every("data-values")[0])["lines"]


def test_more_runs_than_fit_are_told_and_those_that_are_gone_left_out(jobs, tiny):
    runs = [measured(made(jobs, tiny), 2.0) for _ in range(8)]
    shown = views.picked_html(jobs, None, ["gone", "../x", *(run.id for run in runs)])
    assert listed(shown) == [run.id for run in runs[:6]]
    assert "The first 6 of 8 picked runs are shown" in shown
    assert "<svg" in views.picked_html(jobs, None, [made(jobs, tiny).id, made(jobs, tiny).id])  # never measured


# one run


def test_a_failed_run_is_told_in_words_with_a_button_for_each_fix(jobs, tiny):
    run = made(jobs, tiny, batch_size=16)
    run.append(started())
    run.append(Failed(step=3, message="Not enough memory", cause="memory"))
    page = Read(views.about_html(jobs, run))
    assert page.every("data-value")[0] == f"{run.id}/0"
    assert "Retry with batch 8" in page.texts
    new = jobs.retry(run, 0, SERVER)
    assert new.config.stages[0].training.batch_size == 8


def test_whose_a_run_is_follows_from_who_asks(jobs, tiny):
    run = jobs.start(config("starter"), ANNA)
    owners = jobs.owners
    assert [owners.whose(run, who) for who in (ANNA, BEN, Caller())] == ["yours", "another", "another"]
    assert owners.whose(made(jobs, tiny), ANNA) == "server"
    assert owners.runs_server(Caller(token=owners.key))
    assert not owners.runs_server(ANNA)


def test_an_imported_adapter_is_its_callers_run(jobs, trained, tmp_path):
    zipped = export_adapter(trained, tmp_path / "a.zip").path
    run = jobs.bring(str(zipped), trained.config.model, "theirs", Caller(ANNA.session, jobs.owners.key))
    assert run.name == "theirs"
    assert run.has_adapter
    jobs.label(run, ANNA, tags=["mine"])
    with pytest.raises(UserError, match="another session"):
        jobs.label(run, BEN, tags=["his"])


def test_of_an_imported_adapter_no_code_says_how_it_was_trained(jobs, trained, tmp_path):
    run = jobs.bring(str(export_adapter(trained, tmp_path / "a.zip").path), trained.config.model, None, SERVER)
    assert "notebook" not in Read(views.take_html(jobs, run)).every("data-take")
    for write in (as_notebook, as_command):
        with pytest.raises(UserError, match="was made elsewhere"):
            write(run)
    answer = client(jobs.root).get(f"/take/{run.id}/notebook")
    assert (answer.status_code, "was made elsewhere" in answer.text) == (409, True)


def test_what_a_process_writes_into_is_not_deleted_below_it(trained):
    jobs = Jobs(trained.root)
    jobs.exports = Exports(trained.root, (sys.executable, "-c", "import time; time.sleep(60)"))
    jobs.exports.make(trained, "merged")
    with pytest.raises(UserError, match=r"merged of .* is being made. Wait until it is done"):
        jobs.delete(trained, SERVER)
    (process,) = jobs.exports._making.values()
    process.kill()
    process.wait()
    measurement = Measurement(trained)
    measurement.path.mkdir(exist_ok=True)
    measurement.beat()
    with pytest.raises(UserError, match="is being measured"):
        jobs.delete(trained, SERVER)
    measurement.end_beat()
    jobs.delete(trained, SERVER)
    jobs.restore(trained.id, SERVER)


# exports


def until(condition, seconds=60):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "waited too long"
        time.sleep(0.02)


def test_an_export_is_made_by_a_process_and_gone_when_the_result_changes(trained):
    made_by = Exports(trained.root, (sys.executable, "-c", MAKES))
    assert made_by.one(trained, "gguf-q8_0").status == "none"
    made_by.make(trained, "card")
    until(lambda: made_by.one(trained, "card").status == "made")
    card = made_by.one(trained, "card")
    assert card.path.read_text() == "made"
    assert card.bytes == 4
    assert Exports(trained.root).one(trained, "card").status == "made"  # after a restart
    trained.label(note="what stands in the card has changed")
    assert made_by.one(trained, "card").status == "none"
    made_by.make(trained, "card")
    until(lambda: made_by.one(trained, "card").status == "made")
    assert len(list((trained.path / "exports").rglob("card.html"))) == 1  # the old one is removed


def test_an_export_that_fails_says_why_and_can_be_tried_again(trained):
    fails = Exports(trained.root, (sys.executable, "-c", FAILS))
    fails.make(trained, "merged")
    until(lambda: fails.one(trained, "merged").status != "making")
    assert fails.one(trained, "merged").words == "it does not fit <b>here</b>"
    jobs = Jobs(trained.root)
    jobs.exports = fails
    page = Read(views.take_html(jobs, trained))
    assert "⚠ it does not fit <b>here</b>" in page.texts
    assert f"{trained.id}/merged" in page.every("data-value")
    assert Exports(trained.root).one(trained, "merged").words == "it does not fit <b>here</b>"  # an app started later
    killed = Exports(trained.root, (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"))
    killed.make(trained, "merged")
    until(lambda: killed.one(trained, "merged").status != "making")
    assert killed.one(trained, "merged").words == exports.KILLED


def test_one_export_is_made_at_a_time(trained):
    slow = Exports(trained.root, (sys.executable, "-c", "import time; print('loading', flush=True); time.sleep(60)"))
    slow.make(trained, "merged")
    until(lambda: slow.one(trained, "merged").words == "loading")
    with pytest.raises(UserError, match=r"merged of .* is being made"):
        slow.make(trained, "card")
    restarted = Jobs(trained.root)
    assert restarted.exports.one(trained, "merged").words == "loading"
    with pytest.raises(UserError, match=r"merged of .* is being made"):
        restarted.exports.make(trained, "card")
    with pytest.raises(UserError, match=r"merged of .* is being made"):
        restarted.delete(trained, Caller.server())  # its process would write into a folder that is gone
    (process,) = slow._making.values()
    process.kill()
    until(lambda: restarted.exports.one(trained, "merged").status == "failed")
    assert Exports(trained.root).one(trained, "merged").words == exports.INTERRUPTED


def test_one_that_has_ended_unseen_is_not_in_the_way_of_the_next(trained):
    made_by = Exports(trained.root, (sys.executable, "-c", MAKES))
    made_by.make(trained, "card")
    (process,) = made_by._making.values()
    process.wait()
    made_by.make(trained, "card")
    until(lambda: made_by.one(trained, "card").status == "made")


def test_what_cannot_be_exported_is_told_before_it_is_tried(jobs, trained, tiny):
    known = Jobs(trained.root).exports
    assert known.refusal(trained, "merged") is None
    assert "has no adapter yet" in known.refusal(made(jobs, tiny), "merged")
    prefix = Run.create(config(tiny).model_copy(update={"technique": PrefixTuning()}), trained.root)
    (prefix.path / "adapter").mkdir()
    assert "can't be merged" in known.refusal(prefix, "ollama")
    with pytest.raises(UserError, match="can't be merged"):
        known.make(prefix, "ollama")
    with pytest.raises(UserError, match="nothing of this name"):
        known.make(trained, "../../etc")


def test_every_kind_is_a_command_that_the_command_line_knows(trained, tmp_path):
    from tunelab.cli import build_parser

    parser = build_parser()
    for kind in KINDS.values():
        name, *more = kind.command
        parser.parse_args([name, trained.id, *more, "--out", "x", "--runs", str(tmp_path)])


@pytest.mark.slow
def test_the_real_process_makes_a_card(trained):
    real = Exports(trained.root)
    trained.label(note="for the real process")
    real.make(trained, "card")
    until(lambda: real.one(trained, "card").status != "making", 120)
    assert real.one(trained, "card").status == "made", real.one(trained, "card").words
    assert "tickets" in real.one(trained, "card").path.read_text()


def client(root) -> TestClient:
    web = FastAPI()
    web.include_router(take.router(Jobs(root)))
    return TestClient(web)


def test_what_is_taken_along_is_what_the_library_makes(trained, tmp_path):
    asked = client(trained.root)
    notebook = asked.get(f"/take/{trained.id}/notebook")
    assert notebook.text == as_notebook(trained)
    assert f"{trained.id}.ipynb" in notebook.headers["content-disposition"]
    adapter = asked.get(f"/take/{trained.id}/adapter")
    assert adapter.content == export_adapter(trained, tmp_path / "a.zip").path.read_bytes()
    assert not list(Path(tmp_path).glob("playground-take-*"))


def test_a_folder_is_taken_along_as_a_zip_with_its_files(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "big.bin").write_bytes(b"x" * (3 << 20))
    (tmp_path / "Zürich.txt").write_text("naïve")
    with zipfile.ZipFile(io.BytesIO(b"".join(take.zipped(tmp_path)))) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == ["Zürich.txt", "inner/big.bin"]
        assert archive.read("Zürich.txt").decode() == "naïve"
        assert len(archive.read("inner/big.bin")) == 3 << 20


@pytest.mark.parametrize("path", ["gone/notebook", "..%2F..%2Fetc/notebook", "{run}/nothing", "{run}/gguf-f16"])
def test_what_is_not_there_is_one_sentence(trained, path):
    answer = client(trained.root).get(f"/take/{path.format(run=trained.id)}")
    assert answer.status_code in (404, 409)
    assert "Traceback" not in answer.text


def test_a_whole_model_has_no_adapter_to_take(trained, tiny):
    whole = Run.create(config(tiny).model_copy(update={"technique": FullFineTuning()}), trained.root)
    (whole.path / "model").mkdir()
    page = Read(views.take_html(Jobs(trained.root), whole))
    assert "adapter" not in page.every("data-take")
    assert "adapter" in Read(views.take_html(Jobs(trained.root), trained)).every("data-take")
