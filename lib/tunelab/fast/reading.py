"""The structure of a model, read from its modules: which parts it has, and what they compute on a few numbers.

No list of families decides. A model is known if every part of it is one that the fast path computes: an embedding,
decoder layers of attention and a gated MLP with RMSNorms around them, a norm and a head. A part that has no place here
makes the whole model unknown. What can't be seen in the modules (in which order they are called, say) is what
`probe.py` compares.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from tunelab.fast.blocks import Around
from tunelab.fast.changes import Unsupported
from tunelab.fast.gate import ACTIVATIONS, Activation
from tunelab.fast.head import Finish
from tunelab.fast.layout import Heads
from tunelab.fast.norm import RMS, HeadNorms, norm
from tunelab.fast.structure import Layer, Linears, Structure, stacked
from tunelab.machine import libraries

# where RMSNorms stand: before attention, after it, before the MLP, after it
PLACES = (
    ("input_layernorm", None, "post_attention_layernorm", None),  # Llama and most others
    (None, "post_attention_layernorm", None, "post_feedforward_layernorm"),  # OLMo 2
    ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),  # Gemma
)
PROJECTIONS = (("q_proj", "k_proj", "v_proj"), ("qkv_proj",))
GATES = (("gate_proj", "up_proj"), ("gate_up_proj",))
ACTIVATION_NAMES = ("act_fn", "activation_fn")
LENGTH_DEPENDENT = {"longrope", "dynamic"}  # rotations that change with the longest row of a batch
SMALL = 1e-6  # differences of fp32 numbers around 1


def read(causal: Any) -> Structure:
    """What a decoder-only model of transformers computes, with what is added to its layers or without. Nothing is
    changed.

    Raises:
        Unsupported: it has, or its adapter has, something that the fast path does not compute.
    """
    _only(causal, {"model", "lm_head"})
    model = getattr(causal, "model", None)
    _only(model, {"embed_tokens", "layers", "norm", "rotary_emb"}, needed=True)
    head = getattr(causal, "lm_head", None)
    if type(head) is not nn.Linear or head.bias is not None:
        raise Unsupported("a head with a bias or an adapter")
    config, dtype = causal.config, model.embed_tokens.weight.dtype
    heads = _heads(getattr(model.layers[0], "self_attn", None), config)
    layers = [_layer(layer, index, model, heads, config, dtype) for index, layer in enumerate(model.layers)]
    made = Structure(
        layers=layers,
        heads=heads,
        embedding=model.embed_tokens.weight,
        padding=model.embed_tokens.padding_idx,
        embedding_scale=_embedding_scale(model.embed_tokens),
        input_scale=_number(model, "embedding_multiplier") or 1.0,
        norm=_rms(model.norm, dtype),
        head=head.weight,
        finish=_finish(config),
        rotation=functools.partial(_rotation, model.rotary_emb),
        rows_alone=_rows_alone(model.rotary_emb, config),
    )
    known = {id(parameter) for parameter in made.trained}
    if other := next((n for n, p in causal.named_parameters() if p.requires_grad and id(p) not in known), None):
        raise Unsupported(f"{other} is trained, which is no part known here")
    return made


def _only(module: Any, known: set[str], needed: bool = False) -> None:
    """Refuse a module with other parts than those known; `needed`: or with fewer."""
    if module is None:
        raise Unsupported("a model of other parts than an embedding, layers, a norm and a head")
    parts = {name for name, part in module.named_children() if not (isinstance(part, nn.Dropout) and not part.p)}
    if more := sorted(parts - known):
        raise Unsupported(f"{type(module).__name__} has {', '.join(more)}")
    if needed and (fewer := sorted(known - parts)):
        raise Unsupported(f"{type(module).__name__} has no {', '.join(fewer)}")


def _heads(attention: Any, config: Any) -> Heads:
    size, scaling = getattr(attention, "head_dim", None), getattr(attention, "scaling", None)
    if size is None or scaling is None:
        raise Unsupported(f"{type(attention).__name__} does not say the size or the scale of its heads")
    keys = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return Heads(config.num_attention_heads, keys, size, float(scaling), _number(attention, "attn_logit_softcapping"))


def _layer(layer: Any, index: int, model: Any, heads: Heads, config: Any, dtype: torch.dtype) -> Layer:
    names = {name for name, _part in layer.named_children() if name.endswith("norm")}
    places = next((kind for kind in PLACES if {one for one in kind if one} == names), None)
    if places is None:
        raise Unsupported(f"{type(layer).__name__} has norms {', '.join(sorted(names)) or 'nowhere'}")
    _only(layer, {"self_attn", "mlp", *names}, needed=True)
    attention, mlp = layer.self_attn, layer.mlp
    norms = [None if name is None else _rms(getattr(layer, name), dtype) for name in places]
    multiplier = _number(layer, "residual_multiplier") or 1.0
    where = f"model.layers.{index}"
    qkv, gate_up = _first_of(attention, PROJECTIONS), _first_of(mlp, GATES)
    _only(attention, {*qkv, "o_proj", "q_norm", "k_norm"})
    _only(mlp, {*gate_up, "down_proj", *ACTIVATION_NAMES})
    if _heads(attention, config) != heads or not getattr(attention, "is_causal", True):
        raise Unsupported("layers whose heads differ, or that see what comes after")
    if _number(attention, "attention_dropout"):
        raise Unsupported("attention dropout")
    made = Layer(
        around=Around(norms[0], norms[1], multiplier),
        qkv=_stack(f"{where}.self_attn", attention, qkv, dtype),
        out=_stack(f"{where}.self_attn", attention, _first_of(attention, (("o_proj",),)), dtype),
        around_mlp=Around(norms[2], norms[3], multiplier),
        gate_up=_stack(f"{where}.mlp", mlp, gate_up, dtype),
        down=_stack(f"{where}.mlp", mlp, _first_of(mlp, (("down_proj",),)), dtype),
        activation=_activation(mlp),
        head_norms=_head_norms(attention, heads, dtype),
        window=_window(attention, config),
        rope=_rope(attention, index, model.rotary_emb, config),
    )
    _check_widths(made, heads, model.embed_tokens.weight.shape[1])
    return made


def _first_of(module: Any, choices: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    for names in choices:
        if all(getattr(module, name, None) is not None for name in names):
            return names
    raise Unsupported(f"{type(module).__name__} has none of {', '.join(names[0] for names in choices)}")


def _stack(where: str, module: Any, names: tuple[str, ...], dtype: torch.dtype) -> Linears:
    return stacked([f"{where}.{name}" for name in names], [getattr(module, name) for name in names], dtype)


def _check_widths(layer: Layer, heads: Heads, hidden: int) -> None:
    """Refuse linear layers of other sizes than the heads say."""
    inner, mixed = layer.down.inputs, heads.queries * heads.size
    found = sum(layer.qkv.widths), layer.out.inputs, sum(layer.gate_up.widths), layer.out.widths + layer.down.widths
    wanted = mixed + 2 * heads.keys * heads.size, mixed, 2 * inner, [hidden, hidden]
    if found != wanted:
        raise Unsupported(f"linear layers of sizes {found} where {wanted} were expected")


def _window(attention: Any, config: Any) -> int | None:
    """How many tokens a query sees. Where attention does not say, the whole model has the same."""
    own = getattr(attention, "sliding_window", False)
    return (getattr(config, "sliding_window", None) if own is False else own) or None


def _rope(attention: Any, index: int, rotary: Any, config: Any) -> str | None:
    """The name of the rotation of a layer: several kinds of layers may have one of their own."""
    if not getattr(attention, "use_rope", True):
        return None
    return str(config.layer_types[index]) if _by_layer_type(rotary) else ""


def _by_layer_type(rotary: Any) -> bool:
    return bool(getattr(rotary, "layer_types", None))


def _rotation(rotary: Any, rope: str, like: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = rotary(like, positions, rope) if rope else rotary(like, positions)
    return cos.to(like.dtype), sin.to(like.dtype)


def _rows_alone(rotary: Any, config: Any) -> bool:
    kinds = getattr(rotary, "rope_type", "default")
    if not LENGTH_DEPENDENT & set(kinds.values() if isinstance(kinds, dict) else [kinds]):
        return True
    settings = config.rope_parameters
    first = settings.get("original_max_position_embeddings") if isinstance(settings, dict) else None
    return bool(first) and config.max_position_embeddings <= first


def _embedding_scale(table: Any) -> float:
    """What a module multiplies its embeddings by, as it is rounded there."""
    if not isinstance(table, nn.Embedding) or table.max_norm is not None or table.scale_grad_by_freq or table.sparse:
        raise Unsupported(f"an embedding of type {type(table).__name__}")
    if type(table) is nn.Embedding:
        return 1.0
    scale = getattr(table, "embed_scale", None)
    if scale is None:
        raise Unsupported(f"an embedding of type {type(table).__name__}")
    on_meta = isinstance(scale, Tensor) and scale.is_meta
    value = torch.as_tensor(table.scalar_embed_scale if on_meta else scale)
    return float(value.to(table.weight.dtype))


def _finish(config: Any) -> Finish | None:
    divisor, cap = _number(config, "logits_scaling") or 1.0, _number(config, "final_logit_softcapping")
    return None if divisor == 1 and not cap else Finish(divisor, cap or None)


def _number(owner: Any, name: str) -> float | None:
    """A number that some models have."""
    value = getattr(owner, name, None)
    return None if not value else float(value)


def _head_norms(attention: Any, heads: Heads, dtype: torch.dtype) -> HeadNorms | None:
    if getattr(attention, "q_norm", None) is None and getattr(attention, "k_norm", None) is None:
        return None
    queries, keys = (_rms(getattr(attention, name), dtype) for name in ("q_norm", "k_norm"))
    of_head, of_all = (heads.size, heads.size), (heads.queries * heads.size, heads.keys * heads.size)
    sizes = len(queries.weight), len(keys.weight)
    if sizes not in (of_head, of_all):
        raise Unsupported(f"norms of queries and keys of sizes {sizes}")
    return HeadNorms(queries, keys, whole=sizes != of_head)


def _activation(mlp: Any) -> Activation:
    """The known activation that gives what the model's own gives."""
    own = next((part for name in ACTIVATION_NAMES if (part := getattr(mlp, name, None)) is not None), None)
    with torch.no_grad(), torch.device("cpu"):
        x = torch.linspace(-6, 6, 49, dtype=torch.float32)
        for known in ACTIVATIONS:
            if own is not None and torch.allclose(own(x.clone()), known.of(x, None), rtol=SMALL, atol=SMALL):
                return known
    raise Unsupported(f"the activation {type(own).__name__}")


def _rms(module: Any, dtype: torch.dtype) -> RMS:
    """An RMSNorm, read from what its class computes."""
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    kind: Any = type(module)  # a class of modules is hashable, though its type does not say so
    adds_one, rounds_last = _convention(kind)
    if epsilon is None:
        raise Unsupported(f"{kind.__name__} has no epsilon")
    return RMS(module.weight, float(epsilon), adds_one, torch.float32 if rounds_last else dtype)


@functools.cache
def _convention(kind: type[nn.Module]) -> tuple[bool, bool]:
    """Whether a class of RMSNorm adds one to its weight, and whether it multiplies by it before it rounds.

    Raises:
        Unsupported: it computes something else.
    """
    epsilon, unknown = 0.5, Unsupported(f"a norm of type {kind.__name__}")
    with libraries.building(), torch.no_grad(), torch.device("cpu"):
        try:
            module: Any = kind(24, eps=epsilon)
            x = torch.linspace(-40, 40, 72, dtype=torch.float32).sin().view(3, 24) * 3
            weight = torch.linspace(-0.7, 1.9, 24, dtype=torch.float32)
            module.weight.data = weight
            made = module(x)
            rounded = module.bfloat16()(x.bfloat16())
        except (TypeError, ValueError, AttributeError, RuntimeError):
            raise unknown from None
        for adds_one in (False, True):
            if torch.allclose(made, norm(x, weight + adds_one, epsilon)[0], rtol=1e-5, atol=1e-6):
                stored = weight.bfloat16() + adds_one
                early = norm(x.bfloat16(), stored, epsilon)[0]
                return adds_one, not torch.equal(rounded, early)
    raise unknown
