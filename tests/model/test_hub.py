"""Models in the Hub's cache: used where they are whole, fetched where they are not, said where neither is possible."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from tests.helpers import tiny_llama
from tunelab import ModelSpec, UserError, load
from tunelab.model import hub

REPO, COMMIT = "someone/a-model", "0123456789abcdef0123456789abcdef01234567"
SPEC = ModelSpec(repo_id=REPO, dtype="float32")
WEIGHTS = ("model.safetensors",)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Puts files of a tiny model into a cache as huggingface_hub lays it out, and gives their folder."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    made = tiny_llama(tmp_path / "made")
    root = tmp_path / "hub" / f"models--{REPO.replace('/', '--')}"

    def put(*left_out: str) -> Path:
        snapshot = root / "snapshots" / COMMIT
        snapshot.mkdir(parents=True, exist_ok=True)
        (root / "refs").mkdir(exist_ok=True)
        (root / "refs" / "main").write_text(COMMIT)
        (root / "blobs").mkdir(exist_ok=True)
        for file in made.iterdir():
            if file.name not in left_out and not (snapshot / file.name).is_symlink():
                shutil.copy(file, root / "blobs" / file.name)
                (snapshot / file.name).symlink_to(root / "blobs" / file.name)
        return snapshot

    return put


def test_a_whole_model_in_the_cache_is_used_without_asking_the_hub(cache, monkeypatch):
    folder = cache()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("the Hub was asked"))
    said = []
    assert hub.fetch(SPEC, said.append) == folder
    assert not said
    assert load(SPEC).published_name == REPO


@pytest.mark.parametrize("left_out", [WEIGHTS, (*WEIGHTS, "config.json")], ids=["no weights", "a tokenizer alone"])
def test_a_part_of_a_model_in_the_cache_is_not_taken_for_the_model(cache, left_out):
    cache(*left_out)
    with pytest.raises(UserError, match=r"only in part on this machine \(.* is missing\), and the .* can't be reached"):
        load(SPEC)


@pytest.mark.parametrize(
    "left_out",
    [("tokenizer.json",), ("chat_template.jinja", "tokenizer_config.json")],
    ids=["no tokenizer", "no template"],
)
def test_weights_that_another_program_fetched_alone_are_not_all_of_the_model(cache, monkeypatch, left_out):
    whole = cache()
    for name in left_out:
        (whole / name).unlink(missing_ok=True)
    asked, snapshot = [], hub._snapshot

    def fetched(spec, **options):
        if options:
            return snapshot(spec, **options)
        asked.append(spec.repo_id)
        return cache()

    monkeypatch.setattr(hub, "_snapshot", fetched)
    assert load(SPEC).tokenizer.chat_template
    assert asked


def test_a_shard_that_was_not_fetched_is_missed(cache):
    folder = cache(*WEIGHTS)
    index = '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    (folder / "model.safetensors.index.json").write_text(index)
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"only in part on this machine \(model-00002-of-00002\.safetensors is missing"):
        load(SPEC)


def test_the_rest_of_a_model_is_fetched(cache, monkeypatch):
    folder = cache(*WEIGHTS)
    local = huggingface_hub.snapshot_download

    def snapshot(*arguments, local_files_only=False, **options):
        if not local_files_only:
            cache("config.json", *(p.name for p in folder.iterdir()))
        return local(*arguments, local_files_only=True, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    said = []
    assert load(SPEC, said.append).model is not None
    assert said[0] == f"fetching {REPO} from the Hugging Face Hub"


def test_a_model_that_the_hub_has_in_pickles_only_is_refused_for_that(cache, monkeypatch):
    cache(*WEIGHTS)

    def nothing(*_, **__):
        raise errors.EntryNotFoundError("404: there is no such file")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", nothing)
    with pytest.raises(UserError, match=r"no safetensors weights.*\.bin weights are refused"):
        load(SPEC)


def test_a_repository_that_holds_an_adapter_alone_is_told_from_a_model(cache, monkeypatch):
    folder = cache(*WEIGHTS, "config.json")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/the-base"}')
    monkeypatch.setattr(hub, "_reached", lambda *_: True)
    with pytest.raises(UserError, match=r"holds an adapter and no model\. Give its base \(someone/the-base\)"):
        load(SPEC)
