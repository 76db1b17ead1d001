"""Speed of answering: `python -m benchmarks.generation [--json]` (about three minutes).

One prompt, 64 new tokens, greedy, in bf16 (fp32 where that is faster), the sides in turns: base and tuned in one batch
against tuned alone, and against the same with weights that are not packed; our decoding against
`transformers.generate`, for the bare base and for a LoRA r16.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.report import Figure, run
from tunelab.machine import libraries

PROMPT = "What does `os.path.join` do, and when would you rather use `pathlib`?"
TOKENS, RANK = 64, 16


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    from tunelab import ModelSpec, load
    from tunelab.answer.generation import decode
    from tunelab.data import Message, encode_prompt
    from tunelab.fast.decode import FastDecoder
    from tunelab.fast.llama import FastLlama

    spec = ModelSpec(repo_id="starter")
    base = load(spec)
    ids = encode_prompt([Message("user", PROMPT)], base.tokenizer)
    factors = random_factors(base)
    stock, tuned = _stock(spec), _peft(spec, factors)
    llama = FastLlama(base.model, packed=True)

    def ours(adapters: list[Any], with_weights: Any = llama) -> Callable[[], Any]:
        def answer() -> None:
            decoder = FastDecoder(with_weights, adapters, len(ids) + TOKENS)
            steps = list(decode([decoder], [ids], end_ids=frozenset(), max_new_tokens=TOKENS))
            assert len(steps) == TOKENS

        return answer

    sides = {
        "base": ours([None]),
        "tuned": ours([factors]),
        "pair": ours([None, factors]),
        "pair, plain weights": ours([None, factors], FastLlama(base.model).join()),
        "int8": ours([None], _in_int8(FastLlama(base.model, packed=True))),
        "transformers": lambda: _generate(stock, ids),
        "transformers+peft": lambda: _generate(tuned, ids),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    bandwidths = []
    for answer in sides.values():
        answer()  # the first one makes what later ones reuse
    for _ in range(options.rounds):
        for name, answer in sides.items():
            started = time.perf_counter()
            answer()
            seconds[name].append(time.perf_counter() - started)
        bandwidths.append(bytes_per_second())

    def ratio(over: str, under: str) -> list[float]:
        return [a / b for a, b in zip(seconds[over], seconds[under], strict=True)]

    yield Figure.of("pair_over_single", "x", ratio("pair", "tuned"))
    yield Figure.of("packed_over_plain", "x", ratio("pair, plain weights", "pair"))
    yield Figure.of("decode_over_transformers", "x", ratio("transformers", "base"))
    yield Figure.of("decode_over_transformers_tuned", "x", ratio("transformers+peft", "tuned"))
    yield Figure.of("decode_over_transformers_int8", "x", ratio("transformers", "int8"))
    for name, measured in seconds.items():
        yield Figure.of(f"tokens_per_second:{name}", "tokens/s", [TOKENS / s for s in measured])
    read = bytes_per_token(base.model, len(ids) + TOKENS // 2)
    shares = [read * TOKENS / s / b for s, b in zip(seconds["base"], bandwidths, strict=True)]
    yield Figure.of("decode_over_bandwidth", "of limit", shares)
    yield Figure.once("gigabytes_per_second", "GB/s", statistics.median(bandwidths) / 1e9)


def random_factors(base: Any, seed: int = 0) -> dict[str, Any]:
    """The factors of a LoRA r16 on every linear layer, none of them zero."""
    import torch

    from tunelab.techniques.places import linear_layers

    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Any:
        return torch.randn(shape, generator=generator).mul_(0.01)

    layers: Any = linear_layers(base.model)
    return {n: (normal(RANK, m.in_features), normal(m.out_features, RANK), 2.0) for n, m in layers.items()}


def _peft(spec: Any, factors: dict[str, Any]) -> Any:
    """PEFT's model with these factors, as it answers unmerged."""
    from tunelab import LoRA, load

    model: Any = LoRA(r=RANK, lora_alpha=2 * RANK).attach(load(spec))
    for name, (a, b, _scale) in factors.items():
        layer = model.get_base_model().get_submodule(name)
        layer.lora_A["default"].weight.data.copy_(a)
        layer.lora_B["default"].weight.data.copy_(b)
    return model.eval()


def _stock(spec: Any) -> Any:
    """The base as transformers loads it, with the attention that is its default."""
    from transformers import AutoModelForCausalLM

    from tunelab.model.load import choose_device, choose_dtype, find

    dtype = choose_dtype(spec, choose_device(spec))
    return AutoModelForCausalLM.from_pretrained(find(spec), dtype=dtype, local_files_only=True).eval()


class Int8:
    """W (O, C) in 8 bits with a scale per row, to answer only: the weights are rounded, so the answers are others."""

    def __init__(self, weight: Any) -> None:
        import torch

        scale = weight.float().abs().amax(1) / 127
        self.codes, self.scale = (weight.float() / scale[:, None]).round().to(torch.int8), scale.to(weight.dtype)

    def times(self, x: Any, residual: Any = None) -> Any:
        import torch

        assert residual is None
        y = torch.ops.aten._weight_int8pack_mm(x.reshape(-1, x.shape[-1]), self.codes, self.scale)
        return y.view(*x.shape[:-1], -1)

    def back(self, dy: Any) -> Any:
        raise NotImplementedError


def _in_int8(llama: Any) -> Any:
    for part in (part for layer in llama.layers for part in layer.linears):
        part.weight = Int8(part.matrix())
    llama.head = Int8(llama.embedding)
    return llama


def _generate(model: Any, ids: list[int]) -> None:
    import torch

    given = torch.tensor([ids])
    length = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS}
    out = model.generate(
        input_ids=given, attention_mask=torch.ones_like(given), do_sample=False, pad_token_id=0, **length
    )
    assert out.shape[1] == len(ids) + TOKENS


def bytes_per_token(model: Any, context: int) -> int:
    """What one decoding step must read: every weight (the tied embedding once), and keys and values of the context."""
    config = model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    weights = sum(p.numel() * p.element_size() for p in {id(p): p for p in model.parameters()}.values())
    per_position = 2 * config.num_hidden_layers * config.num_key_value_heads * head
    return weights + context * per_position * model.dtype.itemsize


def bytes_per_second(budget_seconds: float = 0.5) -> float:
    """The best rate at which 512 MB are read, of a few times: the largest of each block of 4 bytes is found."""
    import torch

    block = torch.zeros(128 * 1024 * 1024)
    best, end = float("inf"), time.perf_counter() + budget_seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        block.amax()
        best = min(best, time.perf_counter() - started)
    return block.nbytes / best


def main() -> None:
    libraries.prepare()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generation", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side")
    run(measure, parser)


if __name__ == "__main__":
    main()
