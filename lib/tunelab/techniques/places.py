"""The layers of a base that techniques adapt: which there are, how large they are, and what they do.

Families of models name their layers differently, and GPT-2's (`Conv1D`) hold their weight the other way round, (in,
out). What makes keys and values, and what ends attention and MLP, is told by a layer's name and by whether it stands
inside attention. The names are those of transformers' models; PEFT's mappings for IA³ list the same ones by model type.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from tunelab.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tunelab.model.load import Base

KEYS_VALUES = ("k_proj", "v_proj", "key", "value", "kv_b_proj", "kv_proj")
FUSED_QKV = ("query_key_value", "qkv_proj", "c_attn", "Wqkv", "qkv", "in_proj", "W_pack")
ATTENTION_ENDS = ("o_proj", "out_proj", "c_proj", "dense", "wo", "output_proj")
MLP_ENDS = ("down_proj", "fc2", "c_proj", "dense_4h_to_h", "fc_out", "w2", "output_linear")
MAMBA = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")
SHOWN = 12  # names in a message


def block_of(name: str) -> int | None:
    """The decoder layer a module or parameter belongs to, by the first number in its name; None outside of them."""
    found = re.search(r"\.(\d+)\.", name)
    return int(found[1]) if found else None


def last_name(name: str) -> str:
    """'k_proj' of 'model.layers.0.self_attn.k_proj'."""
    return name.rpartition(".")[2]


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The linear layers of a base's decoder by name, quantised ones and `Conv1D` included; the head is none of them."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    from tunelab.model import quantization

    kinds: Any = (nn.Linear, Conv1D, *quantization.quantized_kinds())
    head = model.get_output_embeddings()  # type: ignore[operator]
    inside = set(_decoder(model).modules())
    return {name: m for name, m in model.named_modules() if isinstance(m, kinds) and m is not head and m in inside}


def _decoder(model: Any) -> Any:
    """What reads text: where a model also sees or hears, only this part is adapted."""
    return model.get_decoder() if model.config.get_text_config() is not model.config else model


def shape_of(layer: Any) -> tuple[int, int]:
    """(out, in) of a linear layer, whichever way round it holds its weight."""
    if is_conv1d(layer):
        return layer.nf, layer.nx
    return layer.out_features, layer.in_features


def weight_of(layer: Any) -> Tensor:
    """W (out, in) of a linear layer."""
    return layer.weight.T if is_conv1d(layer) else layer.weight


def is_conv1d(layer: Any) -> bool:
    """Whether the layer is GPT-2's kind of linear layer, which holds its weight as (in, out)."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(layer, Conv1D)


def named(names: Iterable[str], targets: Iterable[str]) -> list[str]:
    """Those of the names that a target names: wholly, or by their last parts ('k_proj', 'mlp.c_proj'), as in PEFT."""
    ends = set(targets)
    return [name for name in names if any(end in ends for end in _ends(name))]


def _ends(name: str) -> Iterator[str]:
    """'c', 'b.c' and 'a.b.c' of 'a.b.c'."""
    parts = name.split(".")
    return (".".join(parts[start:]) for start in reversed(range(len(parts))))


def check_targets(field: str, targets: Sequence[str], every: Iterable[str], otherwise: str = "") -> None:
    """Refuse targets that name no linear layer of the model.

    Raises:
        UserError: with the names there are.
    """
    names = list(every)
    if unknown := [target for target in targets if not named(names, [target])]:
        raise UserError(
            f"{field} = {', '.join(sorted(unknown)[:SHOWN])}: this model has no such linear layers. It has "
            f"{names_text(names)}{otherwise}."
        )


def names_text(names: Iterable[str]) -> str:
    """What the layers are called, for a message."""
    there = sorted({last_name(name) for name in names})
    return f"{', '.join(there[:SHOWN])}{', …' if len(there) > SHOWN else ''}" if there else "none that is linear"


def check_layers(layers: tuple[int, ...] | Literal["all"], base: Base) -> None:
    """Refuse decoder layers that the model does not have.

    Raises:
        UserError: with how many there are.
    """
    count = base.model.config.get_text_config().num_hidden_layers
    if layers != "all" and (wrong := [layer for layer in layers if not 0 <= layer < count]):
        raise UserError(f"layers = {', '.join(map(str, wrong))}: this model has the layers 0 to {count - 1}, or 'all'.")


def shortest(chosen: Sequence[str], model: nn.Module) -> list[str]:
    """Targets that name exactly the chosen modules, as short as they can be: their last names, their last two parts,
    or their whole names."""
    everything = [name for name, _module in model.named_modules() if name]
    for parts in (1, 2):
        targets = sorted({".".join(name.split(".")[-parts:]) for name in chosen})
        if set(named(everything, targets)) == set(chosen):
            return targets
    return sorted(chosen)


def makers_of_keys_and_values(names: Iterable[str]) -> list[str]:
    """The layers that make attention's keys and values: one for each, or one that makes the queries as well."""
    return [name for name in names if _in_attention(name) and last_name(name) in (*KEYS_VALUES, *FUSED_QKV)]


def fused_qkv(names: Iterable[str]) -> list[str]:
    """Those of them that make the queries as well."""
    return [name for name in makers_of_keys_and_values(names) if last_name(name) in FUSED_QKV]


def attention_ends(names: Iterable[str]) -> list[str]:
    """The last linear layer of each attention."""
    return [name for name in names if _in_attention(name) and last_name(name) in ATTENTION_ENDS]


def mlp_ends(names: Iterable[str]) -> list[str]:
    """The last linear layer of each MLP, those of experts included."""
    return [
        name for name in names if block_of(name) is not None and not _in_attention(name) and last_name(name) in MLP_ENDS
    ]


def _in_attention(name: str) -> bool:
    return any("attn" in part or "attention" in part for part in name.split(".")[:-1])


def of_experts(name: str) -> bool:
    """Whether the layer or parameter belongs to the experts of a mixture, the shared one included."""
    return "expert" in name


def out_of_reach(base: Base, every: Iterable[str]) -> dict[str, str]:
    """Linear layers that LoRA can't adapt in this model, and why. A kernel reads their weights without calling the
    layer, or PEFT means another layer by their name: in many mixtures it takes 'gate_proj' for the experts', as an
    earlier version of transformers had it, wherever it stands."""
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    kind = base.model.config.model_type
    missed = {name: "Mamba reads their weights past the layers" for name in every if last_name(name) == "dt_proj"}
    if kind in MAMBA:
        missed |= {name: "PEFT refuses them" for name in every if last_name(name) == "out_proj"}
    probe: Any = LoraConfig(target_modules=sorted({last_name(name) for name in every}))
    convert_peft_config_for_transformers(probe, base.model, None)
    taken = {name for name in every if last_name(name) not in probe.target_modules}
    return missed | dict.fromkeys(sorted(taken), "PEFT takes their names for the experts'")


def fused_experts(model: nn.Module) -> list[str]:
    """Parameters that hold the weights of all experts at once, (experts, …, …): they are no linear layers, and neither
    LoRA nor quantisation reaches them."""
    return [name for name, p in model.named_parameters() if p.ndim == 3 and _holds_experts(model, name)]


def _holds_experts(model: nn.Module, name: str) -> bool:
    owner = model.get_submodule(name.rpartition(".")[0])
    return "expert" in f"{name} {type(owner).__name__}".lower()


def mixtures(model: nn.Module) -> list[str]:
    """The modules that hold the experts of a mixture and add up what they give, one for a decoder layer: what stands
    there in place of an MLP."""
    holders: dict[int | None, str] = {}
    for name, _module in model.named_modules():
        holder = name.rpartition(".")[0]
        if name.endswith("experts") and block_of(name) is not None and not _in_attention(name):
            holders.setdefault(block_of(name), holder)
    return list(holders.values())


def note_on_experts(base: Base, consequence: str) -> list[str]:
    """A sentence where the model keeps its experts in tensors of their own; none elsewhere."""
    fused = fused_experts(base.model)
    if not fused:
        return []
    names = ", ".join(sorted({last_name(name) for name in fused}))
    where = len({block_of(name) for name in fused})
    return [f"the experts ({names}, in {where} layers) are no linear layers in this model: {consequence}"]
