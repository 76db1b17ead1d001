"""What a GGUF file says of its model, and whether it can be read here, told before a weight is looked at.

A reader that passes over what it does not know makes another model of the file: a scaled RoPE that is not scaled, an
attention window that is not there, a tokenizer that splits otherwise. So every setting of the architecture has to be
one that is known here, every tensor one that has a place, and the tokenizer one whose splitting is known; all else is
refused by its name. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelab.errors import UserError, listed, shortened, shown_name

PLAIN = (
    *("context_length", "block_count", "embedding_length", "feed_forward_length", "vocab_size", "tensor_data_layout"),
    *("attention.head_count", "attention.head_count_kv", "attention.layer_norm_rms_epsilon"),
    *("attention.key_length", "attention.value_length", "rope.dimension_count", "rope.freq_base"),
    "rope.scaling.finetuned",
)
WINDOW, CAPS = "attention.sliding_window", ("attn_logit_softcapping", "final_logit_softcapping")
# the settings of each architecture that are read; tests hold each of these equal to the model it was written from
ARCHITECTURES: dict[str, tuple[str, ...]] = {
    "llama": PLAIN,
    "qwen2": PLAIN,
    "qwen3": PLAIN,
    "phi3": (*PLAIN, WINDOW, "rope.scaling.original_context_length"),
    "gemma2": (*PLAIN, WINDOW, *CAPS),
    "gemma3": (*PLAIN, WINDOW, *CAPS),
}
WITHOUT_MEANING = {  # settings that change nothing at these values
    "rope.scaling.type": ("none",), "rope.scaling.factor": (0.0, 1.0), "rope.scaling.attn_factor": (1.0,),
    "expert_count": (0,), "expert_used_count": (0,),
}  # fmt: skip
ROPE_FACTORS = "rope_freqs.weight"  # of Llama 3.1 and later: by how much each frequency is lowered
# tokenizer.ggml.model → the names of pre-tokenizers whose splitting is known; None: it has none
TOKENIZERS: dict[str, tuple[str, ...] | None] = {
    "gpt2": ("smollm", "gpt-2", "llama-bpe", "qwen2", "deepseek-r1-qwen", "tekken"),
    "llama": None,
}
PLAIN_TYPES = ("F32", "F16", "BF16")
TOLD = 120  # characters of another library's message


@dataclass(frozen=True)
class Header:
    """What stands in a GGUF file before its weights."""

    path: Path
    values: dict[str, Any]  # its settings; of long lists only how many there are
    tensors: dict[str, tuple[int, ...]]  # shapes, as PyTorch has them
    types: dict[str, str]  # how each tensor is stored: F16, Q4_K, …
    rope_factors: tuple[float, ...] = ()

    @property
    def architecture(self) -> str:
        return str(self.values.get("general.architecture", ""))

    def setting(self, name: str, default: Any = None) -> Any:
        """A setting of the architecture: `setting("block_count")` is the file's `llama.block_count`."""
        return self.values.get(f"{self.architecture}.{name}", default)

    @property
    def head_size(self) -> int:
        """Width of a head."""
        return int(self.setting("attention.key_length") or self.setting("embedding_length") // self.heads)

    @property
    def heads(self) -> int:
        return int(self.setting("attention.head_count") or 1)

    @property
    def numbers(self) -> int:
        """How many weights there are."""
        total = 0
        for shape in self.tensors.values():
            size = 1
            for side in shape:
                size *= side
            total += size
        return total

    @property
    def stored_as(self) -> str:
        """How most of the weights are stored, as llama.cpp calls it: 'Q4_K'."""
        matrices = Counter(kind for name, kind in self.types.items() if len(self.tensors[name]) > 1)
        return matrices.most_common(1)[0][0] if matrices else "F32"

    @property
    def dtype(self) -> str:
        """The dtype that holds what is read: that of the file, and bfloat16 for what was quantised, whose rounding
        (2⁻⁹ relative) is far below that of the file's."""
        kinds = {kind for name, kind in self.types.items() if len(self.tensors[name]) > 1}
        if kinds <= {"F32"}:
            return "float32"
        return "float16" if kinds <= {"F32", "F16"} else "bfloat16"


def read_header(path: Path) -> Header:
    """What stands before the weights.

    Raises:
        UserError: it is no GGUF file, or is cut short or damaged.
    """
    from gguf import GGUFReader

    name = f"repo_id = '{shown_name(path.name)}'"
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            raise UserError(
                f"{name} is no GGUF file: it does not begin with the letters GGUF. Give a file as llama.cpp writes it, "
                "a folder with safetensors, a Hub id, or 'starter'."
            )
    try:
        reader = GGUFReader(str(path))  # as transformers names it: see `_read_once`
        values = {key: _value(field) for key, field in reader.fields.items()}
        tensors = {tensor.name: tuple(reversed(tensor.shape.tolist())) for tensor in reader.tensors}
        types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
        factors = next((tuple(t.data.tolist()) for t in reader.tensors if t.name == ROPE_FACTORS), ())
    except (ValueError, IndexError, KeyError, OverflowError, TypeError, MemoryError) as error:
        raise UserError(
            f"{name} is cut short or damaged: it ends or breaks off at {path.stat().st_size:,} bytes, before all that "
            f"it announces ({type(error).__name__}). Fetch or copy it again, and compare its size."
        ) from None
    return Header(path, values, tensors, types, factors)


def _value(field: Any) -> Any:
    """A setting; of a list only its length."""
    from gguf import GGUFValueType

    if field.types[0] == GGUFValueType.ARRAY:
        return len(field.data)
    return field.contents()


def check_header(header: Header) -> None:
    """Refuse a file that would be read as another model than it is.

    Raises:
        UserError: with what can't be read, and what to do instead.
    """
    for reason in _reasons(header):
        raise refusal(header.path, reason)


def refusal(path: Path, reason: str) -> UserError:
    """That a GGUF file can't be read, and what to do instead."""
    return UserError(
        f"repo_id = '{shown_name(path.name)}': {reason}. Give the model as a folder with safetensors or as its Hub id."
    )


def failure(path: Path, what: str, error: Exception) -> UserError:
    """That a library could not read a part of a GGUF file."""
    reason = " ".join(str(error).split())[:TOLD]
    return refusal(path, f"its {what} can't be read ({type(error).__name__}: {reason})")


def _reasons(header: Header) -> Sequence[str]:
    """Why a file can't be read, the most telling reason first; nothing where it can."""
    known, architecture = ARCHITECTURES.get(header.architecture), header.architecture
    if known is None:
        return [f"general.architecture = {shortened(architecture, 40)}; {', '.join(ARCHITECTURES)} can be read"]
    if (parts := header.values.get("split.count", 1)) > 1:
        return [f"it is one of {parts} parts of a model; join them with `llama-gguf-split --merge FIRST OUT.gguf`"]
    return [*_settings_not_known(header, known), *_shapes_not_known(header), *_tokenizer_not_known(header)]


def _settings_not_known(header: Header, known: Sequence[str]) -> list[str]:
    start = f"{header.architecture}."
    reasons = []
    for key, value in header.values.items():
        name = key.removeprefix(start)
        if not key.startswith(start) or name in known or value in WITHOUT_MEANING.get(name, ()):
            continue
        reasons.append(f"{shortened(key, 60)} = {shortened(value, 40)} is a setting that is not known here")
    return reasons


def _shapes_not_known(header: Header) -> list[str]:
    rotated = header.setting("rope.dimension_count")
    if rotated is not None and rotated != header.head_size:
        return [f"it rotates {rotated} of the {header.head_size} numbers of a head, which is not known here"]
    if header.setting("attention.value_length", header.head_size) != header.head_size:
        return ["its keys and values are of different widths"]
    layers = header.setting("block_count", 0)
    if header.architecture in ("gemma2", "gemma3") and layers in (46, 62):  # 27B, whose queries are scaled otherwise
        return [f"a {header.architecture} of {layers} layers scales its queries in a way the file does not say"]
    if factors := [name for name in header.tensors if name.startswith("rope_factors")]:
        return [f"it holds {listed(factors)}: a RoPE scaled by length, which is not known here"]
    return []


def _tokenizer_not_known(header: Header) -> list[str]:
    model, pre = (header.values.get(f"tokenizer.ggml.{name}") for name in ("model", "pre"))
    if model not in TOKENIZERS:
        return [f"its tokenizer is of kind {shortened(model, 40)}; {', '.join(TOKENIZERS)} can be read"]
    names = TOKENIZERS[model]
    if names is not None and pre not in names:
        return [
            f"its tokenizer splits text as {shortened(pre or 'default', 40)}, which is not known here "
            f"(known: {', '.join(names)})"
        ]
    if (
        names is None
        and header.architecture == "llama"
        and header.values.get("tokenizer.ggml.add_space_prefix") is False
    ):
        return ["its tokenizer puts no space before a text (add_space_prefix = False), which is not known here"]
    return []
