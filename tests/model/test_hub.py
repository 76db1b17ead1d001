"""Models from the Hub: pinned to a commit, whole before they are used, gone on with where they broke off; and each
failure a sentence with the step that helps. Asked is a server on this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from tests.helpers import tiny_llama
from tests.hub_server import TOKEN, Repository, serving
from tests.train.test_loop import config
from tunelab import (
    Column,
    Comparer,
    ModelSpec,
    Run,
    UserError,
    again,
    as_command,
    config_diff,
    finetune,
    load,
    train_run,
)
from tunelab.export.card import model_card
from tunelab.measure.card.of_run import trained_of
from tunelab.model import download, hub
from tunelab.run.events import StepDone

REPO = "someone/a-model"
SPEC = ModelSpec(repo_id=REPO, dtype="float32")
WEIGHTS = "model.safetensors"
CHUNK = 1000  # bytes that are written at once


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A tiny model."""
    return tiny_llama(tmp_path_factory.mktemp("made") / "model")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A Hub on this machine with nothing in it, and an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(download, "LARGE", 100_000)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    close_session()
    with serving() as hub_here:
        monkeypatch.setattr(constants, "ENDPOINT", hub_here.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub_here.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        yield hub_here
    close_session()


@pytest.fixture
def repository(server, made) -> Repository:
    """The tiny model on that Hub."""
    server.repositories[REPO] = repository = Repository()
    repository.commit(made)
    return repository


def blobs(tmp_path) -> Path:
    return tmp_path / "hub" / f"models--{REPO.replace('/', '--')}" / "blobs"


def refused(spec: ModelSpec = SPEC) -> str:
    with pytest.raises(UserError) as error:
        hub.fetch(spec, None)
    assert len(str(error.value)) <= 400
    return str(error.value)


def test_a_model_is_fetched_once_and_is_that_of_the_hub(server, repository, made):
    said: list[str] = []
    base = load(SPEC, said.append)
    assert said[0] == f"fetching {REPO} from the Hugging Face Hub"
    assert base.published_name == REPO
    assert base.revision == repository.refs["main"]
    folder = hub.fetch(SPEC, None)
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == {f.name: f.read_bytes() for f in made.iterdir()}
    asked = len(server.asked)
    load(SPEC)
    assert len(server.asked) == asked


def test_a_run_keeps_the_commit_that_it_was_trained_on_wherever_the_branch_goes(server, repository, tmp_path):
    first = repository.refs["main"]
    run = finetune(config(REPO))
    assert run.progress().started.base_revision == first
    stopped = Run.create(config(REPO, steps=4))
    for event in train_run(stopped):
        if isinstance(event, StepDone) and event.step == 2:
            stopped.request_stop()
    second = moved(repository, tmp_path)
    assert load(SPEC).revision == second
    assert load(Run(run.path).base_spec).revision == first
    assert again(run, steps=3).model.revision == first
    assert first in as_command(run)
    assert f"`{REPO}` at commit `{first}`" in model_card(run, "", (), None)
    assert trained_of(run, run.progress()).revision == first
    other = finetune(config(REPO, steps=2))
    assert other.progress().started.base_sha256 != run.progress().started.base_sha256
    (differing,) = [one for one in config_diff(run.pinned, other.pinned) if one.field == "revision"]
    assert differing.values == (first, second)
    child = finetune(config(REPO, steps=2).model_copy(update={"start_from": run.id}))
    assert child.progress().started.base_revision == first
    assert stopped.status == "stopped"
    assert list(train_run(stopped))  # other weights would be refused
    assert stopped.status == "finished"


def moved(repository: Repository, tmp_path: Path) -> str:
    """The commit that the branch stands for after other weights were put there, and any program fetched it anew."""
    second = repository.commit(tiny_llama(tmp_path / "other", seed=1))
    (blobs(tmp_path).parent / "refs" / "main").write_text(second)
    return second


def forgetful(run: Run) -> Run:
    """The run as if it had been made before runs recorded the commit of their base."""
    commit = run.progress().started.base_revision
    run.events_path.write_text(run.events_path.read_text().replace(f'"base_revision":"{commit}"', '"base_revision":""'))
    assert Run(run.path).progress().started.base_revision == ""
    return Run(run.path)


def test_a_run_that_recorded_no_commit_answers_beside_one_that_did_while_the_weights_are_the_same(
    server, repository, tmp_path
):
    run, old = finetune(config(REPO, steps=2)), forgetful(finetune(config(REPO, steps=2)))
    main = Column(model=SPEC)
    with Comparer() as comparer:

        def answered(*columns: Column) -> list[str]:
            *_, last = comparer.ask(columns, "say red", max_new_tokens=3)
            return [answer.provenance.base_sha256 for answer in last.answers]

        branch = Column(model=SPEC.model_copy(update={"revision": "main"}))
        (weights,) = set(answered(Column(run=old), Column(run=run), main, branch))
        assert weights == run.progress().started.base_sha256
        moved(repository, tmp_path)
        assert set(answered(main)) == {load(SPEC).sha256} != {weights}
        assert set(answered(Column(run=old), Column(run=run))) == {weights}
        with pytest.raises(UserError, match=r"other weights than .* now .*did not record of which commit"):
            answered(Column(run=old))


@pytest.mark.parametrize("revision", ["v1", "commit"])
def test_a_tag_or_a_commit_names_a_state_of_the_model(server, repository, tmp_path, revision):
    first = repository.refs["v1"] = repository.refs["main"]
    repository.commit(tiny_llama(tmp_path / "other", seed=1))
    spec = SPEC.model_copy(update={"revision": first if revision == "commit" else revision})
    assert hub.commit_of(hub.fetch(spec, None)) == first
    assert hub.commit_of(hub.fetch(SPEC, None)) == repository.refs["main"] != first


def test_what_broke_off_goes_on_where_it_was_within_a_call(server, repository, made):
    server.cut, server.cuts = 0.4, 1
    folder = hub.fetch(SPEC, None)
    assert (folder / WEIGHTS).read_bytes() == (made / WEIGHTS).read_bytes()
    whole = (made / WEIGHTS).stat().st_size
    first, second = server.gets(WEIGHTS)
    kept = first.sent // CHUNK * CHUNK
    assert first.range is None
    assert second.range == f"bytes={kept}-"
    assert kept + second.sent == whole


def test_what_broke_off_for_good_is_kept_and_the_next_call_fetches_the_rest(server, repository, made, tmp_path):
    whole = (made / WEIGHTS).stat().st_size
    server.cut, server.cuts = 0.4, 1000
    told = refused()
    part = next(blobs(tmp_path).glob(f"*{download.PART}"))
    kept = part.stat().st_size
    assert kept == int(whole * 0.4) // CHUNK * CHUNK
    assert "of it are here and are kept" in told
    assert "start again to go on where it broke off" in told
    assert not list((blobs(tmp_path).parent / "snapshots").rglob(WEIGHTS))
    before = len(server.gets(WEIGHTS))
    server.cuts = 0
    said: list[str] = []
    folder = hub.fetch(SPEC, said.append)
    (last,) = server.gets(WEIGHTS)[before:]
    assert last.range == f"bytes={kept}-"
    assert last.sent == whole - kept
    assert (folder / WEIGHTS).read_bytes() == (made / WEIGHTS).read_bytes()
    assert any(message.startswith(f"going on with {REPO}") for message in said)
    assert not list(blobs(tmp_path).glob(f"*{download.PART}"))


def test_a_server_that_hears_no_ranges_gives_the_whole_file_again(server, repository, made):
    server.ranges, server.cut, server.cuts = False, 0.4, 1
    assert (hub.fetch(SPEC, None) / WEIGHTS).read_bytes() == (made / WEIGHTS).read_bytes()


def test_bytes_that_are_not_the_file_get_no_name(server, repository, made, tmp_path):
    server.garbled = True
    assert "is not the file that the Hub has" in refused()
    assert not [blob for blob in blobs(tmp_path).iterdir() if blob.stat().st_size >= 100_000]
    server.garbled = False
    assert (hub.fetch(SPEC, None) / WEIGHTS).read_bytes() == (made / WEIGHTS).read_bytes()


def test_a_part_of_a_model_in_the_cache_is_not_taken_for_the_model(server, repository, made, tmp_path):
    folder = hub.fetch(SPEC, None)
    for name in (WEIGHTS, "config.json", "tokenizer.json"):
        (folder / name).unlink()
        assert {f.name for f in hub.fetch(SPEC, None).iterdir()} == {f.name for f in made.iterdir()}
    (folder / WEIGHTS).unlink()
    server.status = 503
    assert "only a part of it is here (model.safetensors is missing)" in refused()


def test_without_a_network_what_is_whole_is_used_and_what_is_not_is_a_sentence(server, repository, made, monkeypatch):
    folder = hub.fetch(SPEC, None)
    server.shutdown()
    server.server_close()
    close_session()  # its connections would be answered still
    assert hub.fetch(SPEC, None) == folder
    (folder / WEIGHTS).unlink()
    told = refused()
    assert "can't be reached" in told
    assert "connect once to fetch it" in told
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    assert "because HF_HUB_OFFLINE is set. Unset it" in refused()


def test_for_a_chat_template_that_is_not_here_the_hub_is_asked_once_and_can_be_away(server, made, tmp_path):
    folder = tmp_path / "files"
    shutil.copytree(made, folder)
    (folder / "chat_template.jinja").unlink()
    server.repositories[REPO] = Repository()
    server.repositories[REPO].commit(folder)
    folder = hub.fetch(SPEC, None)
    asked = len(server.asked)
    assert hub.fetch(SPEC, None) == folder
    assert len(server.asked) == asked
    shutil.rmtree(folder.parents[1] / "trees")  # as programs leave it that fetch file by file
    hub.fetch(SPEC, None)
    assert len(server.asked) > asked
    shutil.rmtree(folder.parents[1] / "trees", ignore_errors=True)
    server.status = 503
    assert hub.fetch(SPEC, None) == folder


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"private": True}, ("no such model, or it is private", "log in with `hf auth login`", f"/{REPO}")),
        ({"gated": True}, ("is gated", "Accept them at", f"/{REPO}, then log in with `hf auth login`")),
    ],
)
def test_who_is_not_logged_in_is_told_what_to_do(server, repository, change, told, tmp_path):
    for name, value in change.items():
        setattr(repository, name, value)
    message = refused()
    assert all(part in message for part in told)
    assert not list((tmp_path / "hub").rglob(WEIGHTS))


def test_a_token_that_is_not_known_and_one_that_may_not_read_are_told_apart(server, repository, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    assert "does not know the token it was sent (401)" in refused()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    repository.gated = True
    assert "check who is logged in" in refused()
    server.status = 403
    assert "may not read this model (403)" in refused()


@pytest.mark.parametrize("spec", [SPEC, SPEC.model_copy(update={"revision": "v9"})])
def test_what_the_hub_does_not_have_is_said_with_the_place_to_look(server, made, spec):
    if spec.revision:
        server.repositories[REPO] = Repository()
        server.repositories[REPO].commit(made)
        assert "revision = 'v9': someone/a-model has no such branch, tag or commit" in refused(spec)
    else:
        assert "the Hugging Face Hub has no such model" in refused(spec)


@pytest.mark.parametrize(
    ("status", "told"), [(503, "does not work right now (503)"), (429, "is asked too often (429)")]
)
def test_a_hub_that_is_down_is_not_a_model_that_is_missing(server, repository, monkeypatch, status, told):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    server.status = status
    assert told in refused()


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (("pytorch_model.bin", "config.json"), "only pickled ones (.bin, .pt), which can run code"),
        (("adapter_config.json", "adapter_model.safetensors"), "holds an adapter and no model"),
        (("a-q4_k_m.gguf", "README.md"), "holds GGUF files and no safetensors. Fetch one with `hf download"),
        (("model.safetensors",), "holds no config.json, so no model"),
        (("README.md",), "holds no config.json, so no model"),
    ],
)
def test_a_repository_without_a_model_is_refused_before_anything_is_fetched(server, tmp_path, files, told):
    folder = tmp_path / "files"
    folder.mkdir()
    for name in files:
        (folder / name).write_bytes(b"x")
    server.repositories[REPO] = Repository()
    server.repositories[REPO].commit(folder)
    assert told in refused()
    assert not [one for one in server.asked if "/resolve/" in one.path]


def test_a_model_larger_than_the_disk_is_refused_before_anything_is_fetched(server, repository, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=500_100_000))
    assert "the disk has 0.5 GB free" in refused()
    assert not [one for one in server.asked if "/resolve/" in one.path]
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=501_000_000))
    assert hub.fetch(SPEC, None)


def test_pickles_and_weights_in_their_makers_own_format_are_left_on_the_hub(server, made, tmp_path):
    folder = tmp_path / "files"
    shutil.copytree(made, folder)
    for name in ("pytorch_model.bin", "consolidated.safetensors", "training_args.bin"):
        (folder / name).write_bytes(b"x")
    server.repositories[REPO] = Repository()
    server.repositories[REPO].commit(folder)
    assert {f.name for f in hub.fetch(SPEC, None).iterdir()} == {f.name for f in made.iterdir()}


@pytest.mark.parametrize("repo_id", ["./not-there", "a-word", "~/not-there", "/not/there", "a/b/c", "owner/na me"])
def test_a_name_that_can_be_no_hub_id_is_not_looked_for_there(server, repo_id):
    assert "is neither 'starter', nor a folder or GGUF file on this machine" in refused(ModelSpec(repo_id=repo_id))
    assert not server.asked
