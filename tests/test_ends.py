"""Where an answer ends, from training to exports: a model whose tokenizer names another end than its chat template."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.data.templates import KINDS
from tests.export.test_export import bpe_llama
from tests.helpers import WORDS, tiny_llama
from tunelab import (
    DataSpec,
    FullFineTuning,
    LoRA,
    ModelSpec,
    Run,
    RunConfig,
    Stage,
    TrainConfig,
    UserError,
    compare,
    export_adapter,
    export_gguf,
    export_merged,
    finetune,
)
from tunelab.data import chat_format

ROWS = [{"prompt": f"say {word}", "completion": "yes"} for word in WORDS]
PROMPT = "say something"


def base(folder: Path, kind: str) -> Path:
    """A tiny model with the tokenizer of this kind, its settings knowing of `eos_token` alone."""
    made = KINDS[kind]()
    tiny_llama(folder)
    made.save_pretrained(folder)
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((folder / name).read_text())
        settings |= {"eos_token_id": made.eos_token_id, "bos_token_id": made.bos_token_id, "pad_token_id": None}
        (folder / name).write_text(json.dumps(settings))
    return folder


def config(folder: Path, technique=None, steps: int = 50, **data) -> RunConfig:
    settings = {
        "steps": steps, "batch_size": 12, "eval_every": steps, "checkpoint_every": steps, "schedule": "linear",
        "learning_rate": 1e-2,
    }  # fmt: skip
    return RunConfig(
        model=ModelSpec(repo_id=str(folder), dtype="float32"),
        technique=technique or LoRA(),
        stages=(Stage(data=DataSpec(rows=ROWS, heldout=4, **data), training=TrainConfig(**settings)),),
    )


@pytest.fixture(scope="module")
def chatml(tmp_path_factory) -> Path:
    return base(tmp_path_factory.mktemp("chatml"), "chatml")


@pytest.fixture(scope="module")
def run(chatml, tmp_path_factory) -> Run:
    return finetune(config(chatml, steps=2), root=tmp_path_factory.mktemp("runs"))


def test_a_merged_export_names_its_ends_in_its_settings(run, chatml, tmp_path):
    folder = export_merged(run, tmp_path / "merged", dtype="float32").path
    settings = json.loads((folder / "generation_config.json").read_text())
    assert (settings["eos_token_id"], settings["pad_token_id"]) == ([2, 0], 0)
    assert "`<|im_end|>` (token 2) or `<|endoftext|>` (token 0)" in (folder / "README.md").read_text()
    assert json.loads((chatml / "generation_config.json").read_text())["eos_token_id"] == 0


def test_the_card_of_an_adapter_names_the_stop(run, tmp_path):
    with zipfile.ZipFile(export_adapter(run, tmp_path / "a.zip").path) as archive:
        card = archive.read("README.md").decode()
    assert (
        "`<|im_end|>` (token 2) or `<|endoftext|>` (token 0): `generate` stops there by `eos_token_id=[2, 0]`" in card
    )


def test_the_model_of_a_full_fine_tuning_knows_its_ends(chatml, tmp_path):
    run = finetune(config(chatml, FullFineTuning(), steps=1))
    assert json.loads((run.path / "model" / "generation_config.json").read_text())["eos_token_id"] == [2, 0]
    folder = export_merged(run, tmp_path / "merged", dtype="float32").path
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [2, 0]


@pytest.mark.parametrize("special", [True, False])
def test_a_gguf_file_names_the_end_of_turn_beside_the_end_of_text(tmp_path, special):
    from gguf import GGUFReader
    from transformers import AutoTokenizer

    folder = bpe_llama(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = tokenizer.pad_token = "<|endoftext|>"
    tokenizer.save_pretrained(folder)
    if not special:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            settings = json.loads((folder / name).read_text())
            for token in settings.get("added_tokens", []):
                token["special"] = token["special"] and token["content"] != "<|im_end|>"
            for token in settings.get("added_tokens_decoder", {}).values():
                token["special"] = token["special"] and token["content"] != "<|im_end|>"
            (folder / name).write_text(json.dumps(settings))
        assert not AutoTokenizer.from_pretrained(folder).added_tokens_decoder[2].special
    run = finetune(config(folder, steps=1))
    fields = GGUFReader(export_gguf(run, tmp_path / "a.gguf", "f32").path).fields
    said = {name: fields[f"tokenizer.ggml.{name}"].contents() for name in ("eos_token_id", "eot_token_id")}
    assert said == {"eos_token_id": 0, "eot_token_id": 2}
    assert fields["tokenizer.ggml.token_type"].contents()[2] == 3  # control: not shown


@pytest.mark.parametrize(
    ("calls", "template", "puts"),
    [("<|im_start|> $A", None, True), ("$A", None, False), ("<|im_start|> $A", "{{ bos_token }}", True),
     ("<|im_start|> $A", "", False), ("$A", "{{ bos_token }}", False)],
)  # fmt: skip
def test_a_gguf_file_has_bos_put_where_training_had_it(tmp_path, calls, template, puts):
    from gguf import GGUFReader, GGUFWriter
    from tokenizers import processors
    from transformers import AutoTokenizer

    from tunelab.export import gguf_file

    made = AutoTokenizer.from_pretrained(bpe_llama(tmp_path / "model"))
    made.chat_template = None if template is None else template + KINDS["falcon"]().chat_template
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=calls, special_tokens=[("<|im_start|>", 1)]
    )
    writer = GGUFWriter(tmp_path / "a.gguf", "llama")
    gguf_file._add_tokenizer(writer, made, 320)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert GGUFReader(tmp_path / "a.gguf").fields["tokenizer.ggml.add_bos_token"].contents() is puts


def test_a_system_prompt_is_answered_where_the_template_has_no_system_role_and_it_is_said(tmp_path):
    run = finetune(config(base(tmp_path / "gemma", "gemma"), steps=1))
    comparison = compare(run, "Hi<bos>", system="Be brief.", max_new_tokens=2)
    assert "the system text stands in the user's first turn" in comparison.note
    assert "held control tokens such as <bos>" in comparison.note
    assert compare(run, "Hi", max_new_tokens=2).note is None


def test_a_template_that_raises_is_one_sentence_in_compare(tmp_path):
    folder = base(tmp_path / "model", "chatml")
    run = finetune(config(folder, steps=1))
    (folder / "chat_template.jinja").write_text("{{ raise_exception('not today') }}")
    with pytest.raises(UserError, match="The prompt: the chat template says: not today") as error:
        compare(run, "Hi")
    assert len(str(error.value)) <= 400


def test_training_says_what_was_done_to_the_rows(tmp_path):
    run = finetune(config(base(tmp_path / "falcon", "falcon"), steps=1, system="Be brief<|endoftext|>."))
    notes = run.progress().started.notes
    for told in ("training rows: the chat template puts nothing", "training rows: 12 rows held control tokens such as"):
        assert any(note.startswith(told) for note in notes), notes


def test_a_tokenizer_without_an_end_trains_by_the_end_of_its_template(tmp_path):
    folder = base(tmp_path / "model", "chatml")
    for name in ("tokenizer_config.json", "generation_config.json", "config.json"):
        settings = json.loads((folder / name).read_text())
        for setting in ("eos_token", "pad_token", "eos_token_id", "pad_token_id"):
            settings.pop(setting, None)
        (folder / name).write_text(json.dumps(settings | ({"eos_token_id": None} if name == "config.json" else {})))
    run = finetune(config(folder, steps=2))
    assert compare(run, PROMPT, max_new_tokens=4).answers[1].stop_reason
    merged = export_merged(run, tmp_path / "merged", dtype="float32").path
    assert json.loads((merged / "generation_config.json").read_text())["eos_token_id"] == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.6, "top_p": 0.9},
        {"temperature": 0.6, "do_sample": False},
        {"num_beams": 1, "early_stopping": True},
    ],
    ids=str,
)
def test_settings_that_disagree_with_each_other_are_saved_with_the_ends(tmp_path, settings):
    folder = base(tmp_path / "model", "chatml")
    path = folder / "generation_config.json"
    known = json.loads(path.read_text())
    known.pop("pad_token_id", None)
    path.write_text(json.dumps(known | settings))
    for technique in (FullFineTuning(), LoRA(r=4)):
        run = finetune(config(folder, technique, steps=2))
        assert run.status == "finished"
        export_merged(run, tmp_path / technique.kind, "float32")
        ends = json.loads((tmp_path / technique.kind / "generation_config.json").read_text())["eos_token_id"]
        assert set(chat_format(KINDS["chatml"]()).end_ids) <= set(ends if isinstance(ends, list) else [ends])
