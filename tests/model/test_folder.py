"""A base is the model that was named and nothing else, whatever lies beside it: what a library loads by itself, what is
missing, what is stored otherwise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.architectures import tiny_model
from tests.export.test_export import peft_adapter
from tests.helpers import tiny_llama
from tests.train.test_loop import config
from tunelab import FullFineTuning, ModelSpec, Run, UserError, compare, export_merged, finetune, import_adapter, load
from tunelab.model.load import weights_sha256

IDS = torch.arange(3, 60)[None]


@pytest.fixture
def folder(tmp_path) -> Path:
    return tiny_llama(tmp_path / "model")


def spec_of(folder, **more):
    return ModelSpec(repo_id=str(folder), dtype="float32", **more)


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def fresh_logits(folder):
    """Of a new model whose weights are read from the file by safetensors alone."""
    from transformers import LlamaConfig, LlamaForCausalLM

    weights = load_file(folder / "model.safetensors")
    model = LlamaForCausalLM(LlamaConfig.from_json_file(folder / "config.json"))
    if "lm_head.weight" in weights:
        model.lm_head.weight = torch.nn.Parameter(weights["lm_head.weight"])
    model.load_state_dict({"lm_head.weight": weights["model.embed_tokens.weight"]} | weights)
    return logits(model)


def close(ours, theirs):
    return bool((ours - theirs).abs().max() <= 1e-6 * theirs.abs().max())


def put_adapter_beside(folder: Path, tmp_path: Path) -> None:
    """As a trainer leaves it."""
    made = peft_adapter(str(folder), tmp_path / "adapter")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(made / name, folder / name)


def test_an_adapter_beside_the_model_is_not_loaded_and_it_is_said(folder, tmp_path):
    from transformers import AutoModelForCausalLM

    before = weights_sha256(folder)
    put_adapter_beside(folder, tmp_path)
    expected = fresh_logits(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert not close(logits(theirs), expected), "transformers no longer loads it by itself"
    base = load(spec_of(folder))
    assert close(logits(base.model), expected)
    assert base.sha256 == before
    assert any("an adapter lies beside the model" in note and "tunelab import" in note for note in base.notes)

    run = finetune(config(str(folder)))
    assert set(base.notes) <= set(run.progress().started.notes)
    comparison = compare(run, "say red", max_new_tokens=8)
    assert "An adapter lies beside the model" in comparison.note
    fresh = load(spec_of(folder)).model
    ids = base.tokenizer.apply_chat_template(
        [{"role": "user", "content": "say red"}], add_generation_prompt=True, return_dict=False, return_tensors="pt"
    )
    made = fresh.generate(ids, max_new_tokens=8, do_sample=False, attention_mask=torch.ones_like(ids))
    text = base.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    assert comparison.answers[0].text == text.rstrip("\ufffd")
    export_merged(run, tmp_path / "merged", "float32")
    assert not close(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), expected)
    full = finetune(config(str(folder)).model_copy(update={"technique": FullFineTuning()}))
    shutil.copy(folder / "adapter_config.json", full.adapter_path / "adapter_config.json")
    tuned = load(spec_of(folder))
    model = full.config.technique.load(tuned, full.adapter_path)
    assert close(logits(model), fresh_logits(full.adapter_path))


def test_a_folder_with_an_adapter_alone_names_its_base_and_the_way_to_bring_it_in(folder, tmp_path):
    put_adapter_beside(folder, tmp_path)
    (folder / "model.safetensors").unlink()
    for configured in (True, False):
        if not configured:
            (folder / "config.json").unlink()
        with pytest.raises(
            UserError, match=r"holds an adapter and no model.*tunelab import \S+/model --model BASE"
        ) as error:
            load(spec_of(folder))
        assert len(str(error.value)) <= 400
    other = tiny_llama(tmp_path / "other")
    assert import_adapter(folder, spec_of(other)).has_adapter


def reworked(folder: Path, **changes) -> None:
    """The weights of the folder changed by name; None takes one away."""
    weights = load_file(folder / "model.safetensors") | {name.replace("__", "."): w for name, w in changes.items()}
    kept = {name: w.contiguous() for name, w in weights.items() if w is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def test_weights_that_are_missing_or_do_not_fit_are_an_error_and_not_random_numbers(folder):
    reworked(folder, model__norm__weight=None)
    with pytest.raises(UserError, match=r"not all of the model: 1 .* missing, e\.g\. model\.norm\.weight"):
        load(spec_of(folder))
    reworked(folder, model__norm__weight=torch.ones(32))
    with pytest.raises(UserError, match=r"don't fit its config\.json: 1 have other sizes, e\.g\. model\.norm\.weight"):
        load(spec_of(folder))
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:9000])
    with pytest.raises(UserError, match="damaged"):
        load(spec_of(folder))


def test_a_shard_that_is_missing_is_named(folder):
    weights = load_file(folder / "model.safetensors")
    halves = {"model-00001-of-00002.safetensors": {}, "model-00002-of-00002.safetensors": {}}
    for index, (name, weight) in enumerate(sorted(weights.items())):
        list(halves.values())[index % 2][name] = weight
    for name, half in halves.items():
        save_file(half, folder / name, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: shard for shard, half in halves.items() for name in half}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    expected = fresh_logits(folder)
    (folder / "model.safetensors").unlink()
    assert close(logits(load(spec_of(folder)).model), expected)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"lacks 1 of its weight files, e\.g\. model-00002-of-00002\.safetensors"):
        load(spec_of(folder))


def test_a_head_of_its_own_is_used_whatever_the_configuration_says(folder, tmp_path):
    head = load_file(folder / "model.safetensors")["model.embed_tokens.weight"].flip(0).clone()
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"]
    reworked(folder, lm_head__weight=head)
    base = load(spec_of(folder))
    assert close(logits(base.model), fresh_logits(folder))
    assert torch.equal(base.model.lm_head.weight, head)
    run = finetune(config(str(folder)))
    export_merged(run, tmp_path / "merged", "float32")
    assert torch.equal(load_file(tmp_path / "merged" / "model.safetensors")["lm_head.weight"], head)
    assert not json.loads((tmp_path / "merged" / "config.json").read_text())["tie_word_embeddings"]


@pytest.fixture(scope="module")
def stored_in_nf4(tmp_path_factory) -> Path:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    folder = tiny_llama(tmp_path_factory.mktemp("plain") / "model")
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=settings, device_map={"": "cpu"})
    quantised = folder.with_name("nf4")
    shutil.copytree(folder, quantised)
    (quantised / "model.safetensors").unlink()
    model.save_pretrained(quantised)
    return quantised


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("keep", [True, False])
def test_weights_stored_in_nf4_are_the_base_quantised_to_nf4(stored_in_nf4, keep):
    plain = stored_in_nf4.with_name("model")
    ours = load(spec_of(stored_in_nf4, quantization="nf4", keep_dequantized=keep))
    theirs = load(spec_of(plain, quantization="nf4", keep_dequantized=keep))
    assert close(logits(ours.model), logits(theirs.model))
    assert ours.precision == "nf4, float32"


def test_weights_stored_quantised_are_never_taken_for_others(stored_in_nf4, tmp_path):
    for quantization in ("none", "int8"):
        with pytest.raises(UserError, match=r"stored quantised \(nf4\).*Choose quantization 'nf4'"):
            load(spec_of(stored_in_nf4, quantization=quantization))
    run = finetune(config(str(stored_in_nf4)).model_copy(update={"model": spec_of(stored_in_nf4, quantization="nf4")}))
    with pytest.raises(UserError, match=r"stored quantised \(nf4\).*--to adapter"):
        export_merged(run, tmp_path / "merged")
    elsewhere = tmp_path / "gptq"
    shutil.copytree(stored_in_nf4.with_name("model"), elsewhere)
    changed(elsewhere, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(UserError, match=r"stored quantised \(gptq\).*Choose the unquantised model"):
        load(spec_of(elsewhere))


def changed(folder: Path, **settings) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "nonsense"}, "transformers has no model of type 'nonsense'"),
        ({"model_type": "x", "auto_map": {"AutoConfig": "modeling_x.Config"}}, "code of its own, which is never run"),
        ({"num_attention_heads": 0}, "can't be read"),
        *(
            ({"model_type": kind}, f"of type '{kind}' does not go on with a text")
            for kind in ("t5", "bart", "bert", "roberta", "electra", "mbart")
        ),
    ],
)
def test_a_configuration_that_can_not_be_used_is_one_sentence(folder, settings, message):
    (folder / "modeling_x.py").write_text("raise SystemExit('code of the folder was run')")
    changed(folder, **settings)
    with pytest.raises(UserError, match=message) as error:
        load(spec_of(folder))
    assert len(str(error.value)) <= 400


def test_files_that_are_not_the_models_do_not_make_it_another_base(folder):
    before = weights_sha256(folder)
    assert before == load(spec_of(folder)).sha256
    save_file({"x": torch.ones(3)}, folder / "consolidated.safetensors")
    assert weights_sha256(folder) == before
    reworked(folder, model__norm__weight=torch.full((64,), 2.0))
    assert weights_sha256(folder) != before


def test_what_generation_settings_ask_for_changes_no_column(folder):
    settings = {"do_sample": True, "temperature": 5.0, "suppress_tokens": list(range(100)), "repetition_penalty": 9.0}
    plain = finetune(config(str(folder)))
    expected = compare(plain, "say red", max_new_tokens=12).answers
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    answers = compare(Run(plain.path), "say red", max_new_tokens=12).answers
    assert [answer.text for answer in answers] == [answer.text for answer in expected]


def test_a_tokenizer_without_end_and_padding_trains_and_answers(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name in ("eos_token", "pad_token", "bos_token"):
        setattr(tokenizer, name, None)
    tokenizer.save_pretrained(folder)
    for settings in (folder / "config.json", folder / "generation_config.json"):
        named = dict.fromkeys(("eos_token_id", "pad_token_id", "bos_token_id"))
        settings.write_text(json.dumps(json.loads(settings.read_text()) | named))
    generation = folder / "generation_config.json"
    generation.write_text(json.dumps(json.loads(generation.read_text()) | {"eos_token_id": [-1, 10**9]}))
    base = load(spec_of(folder))
    assert base.tokenizer.pad_token is None  # a token made padding would vanish from answers
    assert base.pad_id in range(len(base.model.get_input_embeddings().weight))
    run = finetune(config(str(folder)))
    assert len(compare(run, "say red", max_new_tokens=4).answers) == 2


def test_padding_without_an_embedding_is_never_looked_up(tmp_path):
    from transformers import AutoTokenizer

    folder = tiny_model("gpt2", tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "<pad>", "additional_special_tokens": [f"<{n}>" for n in range(400)]})
    tokenizer.pad_token = "<399>"
    tokenizer.save_pretrained(folder)
    base = load(spec_of(folder))
    assert base.tokenizer.pad_token_id >= 320
    assert finetune(config(folder)).has_adapter


@pytest.mark.parametrize(
    ("made", "told", "message"),
    [
        ("qwen2", "llama", r"of another architecture than model_type = 'llama'.*\.bias"),
        ("llama", "qwen2", r"not all of the model: 6 .*\.bias"),
        ("qwen3", "llama", r"of another architecture than model_type = 'llama'.*k_norm\.weight"),
        ("gpt2", "llama", r"of another architecture than model_type = 'llama'.* and \d+ that it has not are there"),
    ],
)
def test_weights_of_another_architecture_than_the_configuration_are_refused(tmp_path, made, told, message):
    folder = Path(tiny_model(made, tmp_path / made))
    weights = load_file(folder / "model.safetensors")
    reworked(folder, **{name: torch.ones_like(w) for name, w in weights.items() if name.endswith(".bias")})  # from 0
    other = Path(tiny_model(told, tmp_path / f"told-{told}"))
    shutil.copy(other / "config.json", folder / "config.json")
    with pytest.raises(UserError, match=message) as error:
        load(spec_of(folder))
    assert len(str(error.value)) <= 400


def test_more_layers_than_the_configuration_says_are_not_dropped_in_silence(folder):
    changed(folder, num_hidden_layers=1)
    with pytest.raises(UserError, match=r"have no place in it, e\.g\. model\.layers\.1\."):
        load(spec_of(folder))


@pytest.mark.parametrize(
    "name",
    [
        "vision_tower.proj.weight",
        "model.vision_tower.layers.0.proj.weight",
        "multi_modal_projector.linear_1.bias",
        "v_head.summary.weight",  # of TRL
        "score.weight",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.layers.0.self_attn.attn.bias",
        "model.layers.0.self_attn.attention.masked_bias",
        "model.mtp_layers.0.mlp.up_proj.weight",
    ],
)
def test_weights_of_other_parts_of_a_model_and_old_buffers_are_left_out(folder, name):
    expected = fresh_logits(folder)
    reworked(folder, **{name.replace(".", "__"): torch.ones(3)})
    assert close(logits(load(spec_of(folder)).model), expected)


def test_a_layer_that_predicts_further_on_is_left_out_and_any_other_is_not(folder):
    expected = fresh_logits(folder)
    layer = {f"model__layers__2__{name}": torch.ones(3) for name in ("eh_proj__weight", "mlp__up_proj__weight")}
    reworked(folder, **layer)
    assert close(logits(load(spec_of(folder)).model), expected)
    reworked(folder, model__layers__3__mlp__up_proj__weight=torch.ones(3))
    with pytest.raises(UserError, match=r"1 have no place in it, e\.g\. model\.layers\.3\."):
        load(spec_of(folder))


def test_biases_of_zeros_change_nothing_and_others_are_not_dropped(folder):
    expected = fresh_logits(folder)
    name = "model__layers__0__self_attn__o_proj__bias"
    reworked(folder, **{name: torch.zeros(64)})
    assert close(logits(load(spec_of(folder)).model), expected)
    reworked(folder, **{name: torch.ones(64)})
    with pytest.raises(UserError, match=r"have no place in it, e\.g\. model\.layers\.0\.self_attn\.o_proj\.bias"):
        load(spec_of(folder))


def untemplated(folder: Path) -> Path:
    (folder / "chat_template.jinja").unlink()
    return folder


def test_a_base_model_is_trained_and_said_to_be_one_with_the_form_of_its_prompts(folder):
    from tunelab import DataSpec, Stage, preview

    assert not [note for note in finetune(config(str(folder))).progress().started.notes if "base model" in note]
    run = finetune(config(str(untemplated(folder))))
    (note,) = [note for note in run.progress().started.notes if "base model" in note]
    assert "no chat template" in note
    assert "### Question:" in note
    rows = ({"prompt": "say red", "completion": "red"}, {"prompt": "say blue", "completion": "blue"})
    for learn, count in (("instructions", 1), ("text", 0)):
        kept = rows if learn == "instructions" else ({"text": "red is red"}, {"text": "blue is blue"})
        _rows, notes = preview(Stage(learn=learn, data=DataSpec(rows=kept)), spec_of(folder))
        assert len([note for note in notes if "base model" in note]) == count


def test_a_template_whose_turns_end_where_the_settings_do_not_stop_is_that_of_a_base_model(folder):
    from transformers import AutoTokenizer

    from tunelab.data import chat_format
    from tunelab.data.untaught import untaught_notes

    tokenizer = AutoTokenizer.from_pretrained(folder)  # lives as long as it is asked
    chat = chat_format(tokenizer)
    path = folder / "generation_config.json"
    for stops, said in ((0, True), ([0, 2], False), (2, False), (None, False)):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": stops}))
        notes = untaught_notes(chat, folder)
        assert bool(notes) == said
    path.write_text(json.dumps({"eos_token_id": 0}))
    assert "ends a turn with <|im_end|>, and the model's own settings stop at <|endoftext|> alone" in str(
        untaught_notes(chat, folder)
    )


def test_a_revision_of_a_model_that_is_not_on_the_hub_is_said_to_be_left_out(folder):
    base = load(spec_of(folder, revision="v1"))
    assert any("revision = 'v1' is left out" in note for note in base.notes)
