"""A run as one GGUF file, as llama.cpp reads it: hyperparameters, tokenizer, chat template and weights in one.

Written for the Llama family with byte-level BPE, which is what can be read back and checked here: the file gets its
name only after transformers has loaded it and given the merged model's logits and tokens. Format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; the order of the rows of q and k and the names of
pre-tokenizers are those of llama.cpp's own converter.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from tunelab.data import chat_format
from tunelab.errors import UserError
from tunelab.export.merged import Merged, check_mergeable, merge, rounding_error
from tunelab.export.targets import Exported, check_file, new_file
from tunelab.machine import libraries
from tunelab.run.public import provenance
from tunelab.run.run import Run

if TYPE_CHECKING:
    import numpy
    from gguf import GGUFWriter

GgufType = Literal["f16", "q8_0", "f32"]
SUFFIX = ".gguf"
BLOCK = 32  # weights that share a scale in q8_0
ROUNDING_TOLERANCE = {"f32": 1e-4, "f16": 0.01, "q8_0": 0.1}  # relative, over the logits of the probe
SAMPLES = ("a\n\n1.", "it's  two, 3 and 45", "x = [1, 2]\n\tdef f():", "Zürich, naïve, 東京, 🙂", "  <|im_end|> end")
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
PRE_TOKENIZERS = {  # llama.cpp's name → how `tokenizers` spells it
    "smollm": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL],
    "gpt-2": [BYTE_LEVEL],
}
ELSEWHERE = "Export with --to merged and convert that folder with llama.cpp's convert_hf_to_gguf.py."


def export_gguf(
    run: Run, path: str | Path, kind: GgufType = "f16", progress: Callable[[str], None] = lambda message: None
) -> Exported:
    """The new file at `path`, weights in `kind` (norms always in f32).

    Raises:
        UserError: the model is no Llama, its tokenizer no byte-level BPE, the technique can't be merged, or the file,
            read back, is not the merged model.
    """
    from tunelab.model.folder import read_config
    from tunelab.model.load import find, load_tokenizer

    if kind not in get_args(GgufType):
        raise UserError(f"kind = '{kind}': a GGUF file is written in {', '.join(get_args(GgufType))}.")
    target = Path(path).expanduser()
    check_file(target, SUFFIX)
    check_mergeable(run)
    config = read_config(find(run.base_spec))
    check_family(config, kind)
    check_tokenizer(load_tokenizer(run.base_spec), config.vocab_size)
    merged = merge(run, progress)
    progress(f"writing GGUF in {kind}")
    with new_file(target, SUFFIX) as temporary:
        _write(temporary, run, merged, kind)
        progress("reading it back")
        error = _check(temporary, merged, kind)
    notes = [*merged.notes, f"Read back from the file in {kind}, its logits differ by {error:.1e} (relative)."]
    if _template_of(merged.tokenizer) is None:
        form = chat_format(merged.tokenizer).plain_prompt
        notes.append(f"The tokenizer has no chat template, so the file has none: a prompt has the form {form!r}.")
    return Exported(target, tuple(notes))


def check_family(config: Any, kind: str) -> None:
    """Refuse what is no plain Llama.

    Raises:
        UserError: with the reason and another way.
    """
    rope = config.rope_parameters if config.model_type == "llama" else {}
    if config.model_type != "llama":
        reason = f"model_type = '{config.model_type}': GGUF is written for the Llama family (model_type 'llama')"
    elif config.hidden_act != "silu":
        reason = f"hidden_act = '{config.hidden_act}': the file can only mean 'silu'"
    elif rope["rope_type"] != "default":
        reason = f"rope_type = '{rope['rope_type']}': only 'default' can be read back and checked"
    elif kind == "q8_0" and (config.hidden_size % BLOCK or config.intermediate_size % BLOCK):
        reason = f"q8_0 needs layer widths in multiples of {BLOCK}, this model has {config.hidden_size} and "
        reason += f"{config.intermediate_size}; choose f16"
    else:
        return
    raise UserError(f"{reason}. {ELSEWHERE}")


def check_tokenizer(tokenizer: Any, vocab_size: int) -> str:
    """llama.cpp's name of the tokenizer's pre-tokenizer.

    Raises:
        UserError: it is no byte-level BPE, or splits text in a way that has no such name here.
    """
    from transformers import PreTrainedTokenizerFast

    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"{type(tokenizer).__name__} has no tokenizer.json; byte-level BPE is needed. {ELSEWHERE}")
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    model, splits = parts["model"], _splits(parts["pre_tokenizer"])
    name = next((name for name, known in PRE_TOKENIZERS.items() if splits == known), None)
    if model["type"] != "BPE" or model.get("byte_fallback") or BYTE_LEVEL["type"] not in [s["type"] for s in splits]:
        reason = f"the tokenizer is {model['type']}, and only byte-level BPE is written"
    elif not model["merges"]:
        reason = "the tokenizer has no merges, which llama.cpp needs"
    elif parts["normalizer"] is not None:
        reason = f"the tokenizer normalises text ({parts['normalizer']['type']}), which the file can't say"
    elif name is None:
        reason = (
            f"the tokenizer splits text by {'+'.join(s['type'] for s in splits)} with settings that have no name here"
        )
    elif len(tokenizer) > vocab_size:
        reason = f"the tokenizer has {len(tokenizer)} tokens and the model only {vocab_size} embeddings"
    else:
        return name
    raise UserError(f"{reason[0].upper()}{reason[1:]}. {ELSEWHERE}")


def _splits(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The pre-tokenizers in their order, without the setting that only moves offsets."""
    parts = part["pretokenizers"] if part and part["type"] == "Sequence" else [part] if part else []
    return [{key: value for key, value in each.items() if key != "trim_offsets"} for each in parts]


def _write(path: Path, run: Run, merged: Merged, kind: str) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    _add_facts(writer, run, kind)
    _add_hyperparameters(writer, merged.model.config)
    _add_tokenizer(writer, merged.tokenizer, merged.model.config.vocab_size)
    _add_weights(writer, merged.model, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_facts(writer: GGUFWriter, run: Run, kind: str) -> None:
    from gguf import GGML_QUANT_VERSION, LlamaFileType

    facts = provenance(run)
    file_types = {"f32": LlamaFileType.ALL_F32, "f16": LlamaFileType.MOSTLY_F16, "q8_0": LlamaFileType.MOSTLY_Q8_0}
    writer.add_type("model")
    writer.add_name(run.name)
    writer.add_description(f"{run.config.method} of {facts['base_published_as']}, made with tunelab (run {run.id})")
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, facts["base_published_as"])
    writer.add_file_type(file_types[kind])
    writer.add_quantization_version(GGML_QUANT_VERSION)


def _add_hyperparameters(writer: GGUFWriter, config: Any) -> None:
    head_dim = config.head_dim or config.hidden_size // config.num_attention_heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: GGUFWriter, tokenizer: Any, vocab_size: int) -> None:
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    tokens, types = vocabulary(tokenizer, vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(check_tokenizer(tokenizer, vocab_size))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_add_space_prefix(False)
    chat = chat_format(tokenizer)
    writer.add_add_bos_token(chat.starts_with_bos)
    writer.add_add_eos_token(tokenizer("x").input_ids[-1] == tokenizer.eos_token_id)
    end, eos = next(iter(chat.end_ids), None), tokenizer.eos_token_id
    for add, token in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, end if eos is None else eos),
        (writer.add_eot_token_id, None if end == eos else end),  # llama.cpp stops at both
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if token is not None:
            add(token)
    if template := _template_of(tokenizer):
        writer.add_chat_template(template)


def _template_of(tokenizer: Any) -> str | None:
    """The chat template; of several, the one that conversations are written by."""
    return str(tokenizer.get_chat_template()) if tokenizer.chat_template else None


def vocabulary(tokenizer: Any, vocab_size: int) -> tuple[list[str], list[int]]:
    """The token and the kind of every row of the embedding; rows without a token are called [PAD7] and unused."""
    from gguf import TokenType

    tokens = {index: token for token, index in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    ends = chat_format(tokenizer).end_ids
    types: list[int] = []
    for index in range(vocab_size):
        if index in ends:
            types.append(TokenType.CONTROL)  # as text, llama.cpp would show it
        elif index in added:
            types.append(TokenType.CONTROL if added[index].special else TokenType.USER_DEFINED)
        else:
            types.append(TokenType.NORMAL if index in tokens else TokenType.UNUSED)
    return [tokens.get(index, f"[PAD{index}]") for index in range(vocab_size)], types


def _add_weights(writer: GGUFWriter, model: Any, kind: str) -> None:
    from gguf import MODEL_ARCH, GGMLQuantizationType, get_tensor_name_map
    from gguf.quants import quantize

    config = model.config
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config.num_hidden_layers)
    wide = {"f32": GGMLQuantizationType.F32, "f16": GGMLQuantizationType.F16, "q8_0": GGMLQuantizationType.Q8_0}[kind]
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue  # without an output matrix, readers use the embedding
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert gguf_name, f"GGUF has no name for {name}"
        values = permuted(name, weight.float().numpy(), config.num_attention_heads, config.num_key_value_heads)
        dtype = wide if values.ndim > 1 else GGMLQuantizationType.F32
        writer.add_tensor(gguf_name, quantize(values, dtype), raw_dtype=dtype)


def permuted(name: str, values: numpy.ndarray, heads: int, kv_heads: int) -> numpy.ndarray:
    """q and k with the rows of each head reordered: llama.cpp rotates neighbouring pairs (0, 1), (2, 3), …, where
    transformers rotates the halves (0, d/2), (1, d/2 + 1), …. Anything else unchanged.

    Source: `LlamaModel.permute` in llama.cpp's convert_hf_to_gguf.py.
    """
    part = name.split(".")[-2]
    if part not in ("q_proj", "k_proj"):
        return values
    count = heads if part == "q_proj" else kv_heads
    split = values.reshape(count, 2, values.shape[0] // count // 2, *values.shape[1:])
    return split.swapaxes(1, 2).reshape(values.shape)


def _check(path: Path, merged: Merged, kind: str) -> float:
    """How far the logits of the file, read by transformers, are from the merged model's, relative to their size.

    Raises:
        UserError: too far, or it splits text into other tokens.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with libraries.building(), contextlib.redirect_stderr(io.StringIO()):  # progress bars of the libraries
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        model: Any = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
    # transformers does not know the pre-tokenizer's name and takes a plain byte level
    tokenizer.backend_tokenizer.pre_tokenizer = merged.tokenizer.backend_tokenizer.pre_tokenizer
    for text in SAMPLES:
        if tokenizer(text).input_ids != merged.tokenizer(text).input_ids:
            raise UserError(
                f"Read back, the GGUF file splits {text!r} into other tokens. Nothing was written. {ELSEWHERE}"
            )
    return rounding_error(merged, model.eval(), ROUNDING_TOLERANCE[kind], f"the GGUF file in {kind}")
