"""Whether the fast path computes what a model's own code computes: tried on a small copy of its architecture.

The modules of a model don't say in which order its code calls them, or what it does besides. So an architecture that
the tests of this library don't compare is computed both ways once, on the CPU, before it is trusted: a copy of few
layers and narrow ones, one of each kind, with random weights so wide that attention decides what comes next (with usual
random weights the loss is ln V even where attention is broken), windows and caps so tight that they count, and adapters
that are not zero. Loss, gradients, first of the adapters alone and then of every weight, and the logits of a decoder
have to agree. What techniques add besides stands before or behind what was compared then, and is the same in every
architecture. The answer is kept on disk.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunelab.data.batches import Batch, collate
from tunelab.data.encode import Encoded
from tunelab.fast.changes import Unsupported
from tunelab.fast.decode import Factors, FastDecoder
from tunelab.fast.llama import FastLlama, FastLoss
from tunelab.fast.reading import read
from tunelab.fast.structure import Structure
from tunelab.losses import PlainLoss
from tunelab.machine import libraries
from tunelab.machine.measured import measured
from tunelab.model.load import unwrapped

PROVEN = ("transformers.models.llama.modeling_llama.LlamaForCausalLM",)  # compared in all its settings by the tests
VOCABULARY, HIDDEN, INTERMEDIATE = 128, 64, 96
WINDOW, CAP = 6, 2.0  # of the copy, where the model has them
ROWS, COMMON, SCORED = (24, 19, 21), 10, 12  # tokens: of each row, of what they begin with, from where on they count
RANK = 2
LOSS_ERROR, GRADIENT_ERROR = 1e-5, 1e-4  # relative, in fp32; what rounding makes is a tenth of it


def check(model: Any, to_decode: bool = False) -> None:
    """Compare both ways, unless that was done before for this architecture.

    Raises:
        Unsupported: the fast path does not read this model, or computes something else; `to_decode`: or a row depends
            on those that stand beside it, which are others at each token.
    """
    causal = unwrapped(model)
    kind, structure = type(causal), read(causal)
    if to_decode and not structure.rows_alone:
        raise Unsupported("its rotation changes with the longest row of a batch")
    # a window that a configuration names may be one that the code does not know
    if _named(kind) in PROVEN and not any(layer.window for layer in structure.layers):
        return
    config = small_config(causal.config, structure)
    name, key = kind.__name__, _key(kind, config)
    try:
        reason = measured("fast-path", key, lambda: difference(kind, config), lambda value: isinstance(value, str))
    except Exception as error:  # a model like no other, or too little memory just now: asked again the next time
        what = f"{type(error).__name__}: {str(error)[:200]}"
        raise Unsupported(f"{name}: a small copy of it could not be computed ({what})") from error
    if reason:
        raise Unsupported(f"{name}: {reason}")


def _key(kind: type, config: Any) -> dict[str, Any]:
    """What the answer depends on, the machine apart."""
    import transformers

    return {
        "architecture": _named(kind),
        "config": hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True, default=str).encode()).hexdigest(),
        "transformers": transformers.__version__,
        "fast": _own_code(),
    }


def _named(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


@functools.cache
def _own_code() -> str:
    """A hash of the fast path's own code."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def small_config(config: Any, structure: Structure) -> Any:
    """The configuration of a copy: one layer of each kind, two at least, and narrow; heads as wide as they are, for
    their rotation depends on it."""
    made, heads = copy.deepcopy(config), structure.heads
    layers = _one_of_each(structure)
    for name in ("layer_types", "no_rope_layers"):
        if isinstance(values := getattr(made, name, None), list | tuple):
            setattr(made, name, [values[layer] for layer in layers])
    keys = min(heads.keys, 2)
    queries = keys * min(heads.per_group, 2)
    own_size = getattr(config, "head_dim", None) is not None
    changes: dict[str, Any] = {
        "num_hidden_layers": len(layers), "num_attention_heads": queries, "num_key_value_heads": keys,
        "hidden_size": HIDDEN if own_size else queries * heads.size, "intermediate_size": INTERMEDIATE,
        "vocab_size": VOCABULARY, "pad_token_id": None, "_attn_implementation": "eager",
    }  # fmt: skip
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if getattr(made, name, None):
            changes[name] = CAP
    if getattr(made, "sliding_window", None):
        changes["sliding_window"] = WINDOW
    for name, value in changes.items():
        setattr(made, name, value)
    made.__dict__.pop("quantization_config", None)
    return made


def _one_of_each(structure: Structure) -> list[int]:
    """The first layer of each kind, or of one kind the first two."""
    kinds: dict[tuple[Any, ...], int] = {}
    for index, layer in enumerate(structure.layers):
        kinds.setdefault((layer.window is None, layer.rope, layer.head_norms is None), index)
    found = sorted(kinds.values())
    return found if len(found) > 1 else [0, min(1, len(structure.layers) - 1)]


def difference(kind: type, config: Any) -> str:
    """How the fast path differs from the model's own code, in words; nothing where they agree."""
    with libraries.building(), torch.inference_mode(False), torch.enable_grad():
        model = _small_model(kind, config)
        for parameters in (_trained(model), list(model.parameters())):
            for parameter in parameters:
                parameter.requires_grad_(True)
            plain, fast = (list(_computed(model, way)) for way in (PlainLoss, FastLoss))
            for (what, expected, error), (_, got, _) in zip(plain, fast, strict=True):
                if (off := _distance(got, expected)) > error:
                    return f"on a small copy, {what} of the fast path are {off:.2g} off those of the model's own code"
        off = _decoded(model)
    if off > GRADIENT_ERROR:
        return f"on a small copy, logits of the fast path's decoder are {off:.2g} off those of the model's own code"
    return ""


def _distance(got: Tensor, expected: Tensor) -> float:
    """Relative; a number that is none is far off."""
    off = float((got - expected).norm() / expected.norm().clamp(min=1e-12))
    return off if off == off else float("inf")


def _small_model(kind: Any, config: Any) -> Any:
    """A random model with adapters, on the CPU and in fp32."""
    from peft import LoraConfig, inject_adapter_in_model

    with torch.device("cpu"):
        model = kind(config).float().train()
        generator = torch.Generator().manual_seed(0)
        model.requires_grad_(False)
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            if parameter.ndim > 1:  # products of about 1, in embeddings, layers and head alike
                parameter.copy_(drawn if "embed" in name else 1.5 * drawn / parameter.shape[1] ** 0.5)
            else:
                parameter.add_(0.3 * drawn)
        adapters = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=_targets(model))
        model = inject_adapter_in_model(adapters, model)
        for parameter in _trained(model):
            parameter.data.copy_(
                0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float32) / parameter.shape[1] ** 0.5
            )
    return model


def _targets(model: Any) -> list[str]:
    return sorted({name.rpartition(".")[2] for layer in read(model).layers for p in layer.linears for name in p.names})


def _trained(model: Any) -> list[Any]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    common, *own = (
        torch.randint(3, VOCABULARY, (count,), generator=generator).tolist()
        for count in (COMMON, *(length - COMMON for length in ROWS))
    )
    rows = [Encoded(common + rest, [place >= SCORED for place in range(COMMON + len(rest))]) for rest in own]
    return collate(rows, 0)


def _computed(model: Any, way: Any) -> Iterator[tuple[str, Tensor, float]]:
    """What is compared, and how far it may be off: the loss, and the gradient of all that is trained."""
    model.zero_grad()
    loss = way(model)(_batch())
    loss.backward()
    yield "losses", loss.detach()[None], LOSS_ERROR
    for parameter in _trained(model):
        yield "gradients", parameter.grad.clone(), GRADIENT_ERROR


@torch.no_grad()
def _decoded(model: Any) -> float:
    """How far the logits of a decoder are off, with and without adapters, of a prompt and of the token behind it."""
    llama = FastLlama(model)
    if not llama.rows_alone:
        return 0.0  # never asked to decode
    ids = _batch().input_ids[:1, : min(ROWS)]
    decoder = FastDecoder(llama, [None, _factors(model)], ids.shape[1])
    decoder(ids[:, :-1].expand(2, -1))
    got = decoder(ids[:, -1:].expand(2, -1))
    model.eval()
    expected = []
    for on in (False, True):
        for module in filter(_is_lora, model.modules()):
            module.enable_adapters(on)
        expected.append(model(input_ids=ids, use_cache=False).logits[0, -1])
    return _distance(got, torch.stack(expected))


def _factors(model: Any) -> Factors:
    return {
        name: (module.lora_A["default"].weight, module.lora_B["default"].weight, module.scaling["default"])
        for name, module in model.named_modules()
        if _is_lora(module)
    }


def _is_lora(module: Any) -> bool:
    from peft.tuners.lora import LoraLayer

    return isinstance(module, LoraLayer)
