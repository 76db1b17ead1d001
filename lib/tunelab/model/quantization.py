"""Four and eight bits: what NF4 is, in twenty lines, and how bitsandbytes is used.

**NF4** (Dettmers et al. 2023, "QLoRA", section 3): weights are divided into blocks of 64, each block is divided by its
largest magnitude, and every value is replaced by the nearest of 16 levels, which lie at the quantiles of a normal
distribution, because trained weights are nearly normal. Stored: 4 bits per weight and one scale per block (double
quantisation stores the scales in 8 bits as well): 4.13 bits per weight.

`quantize_nf4` and `dequantize_nf4` are the reference, readable and tested against bitsandbytes, which does the work.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tunelab.errors import UserError
from tunelab.machine import hardware, processes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tunelab.spec import ModelSpec

BLOCK = 64
WORTH_TELLING = 0.02  # share of the weights
# Dettmers et al. 2023, appendix E: exact levels of NF4
NF4_LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


def quantize_nf4(weight: Tensor, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """NF4 codes, 0 to 15 (numel / block, block), and the scale of each block (numel / block, 1).

    Source: Dettmers et al. 2023, section 3, equation 1. Without double quantisation.
    """
    blocks = weight.detach().float().reshape(-1, block)
    scale = blocks.abs().amax(dim=1, keepdim=True)
    levels = torch.tensor(NF4_LEVELS, device=weight.device, dtype=torch.float32)
    boundaries = (levels[1:] + levels[:-1]) / 2
    return torch.bucketize(blocks / scale.clamp(min=1e-12), boundaries), scale


def dequantize_nf4(codes: Tensor, scale: Tensor, shape: torch.Size) -> Tensor:
    """The weights (fp32, `shape`) that the codes stand for."""
    return (torch.tensor(NF4_LEVELS, device=codes.device, dtype=torch.float32)[codes] * scale).reshape(shape)


def check_available(spec: ModelSpec, device: torch.device) -> None:
    """Refuse quantisation where bitsandbytes has no build.

    Raises:
        UserError: with what to choose instead.
    """
    try:
        import bitsandbytes  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(
            f"quantization = '{spec.quantization}' needs bitsandbytes, which does not load on this machine "
            f"({sys.platform}): {error}. Choose quantization 'none'."
        ) from None
    if device.type == "mps":
        raise UserError(f"quantization = '{spec.quantization}' does not work on MPS. Choose 'none', or device 'cpu'.")


def bitsandbytes_config(spec: ModelSpec, dtype: torch.dtype) -> Any:
    """The `BitsAndBytesConfig` for `spec`: NF4 with double quantisation as in QLoRA, or LLM.int8()."""
    from transformers import BitsAndBytesConfig

    if spec.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,  # the default is fp32
        bnb_4bit_quant_storage=torch.uint8,
    )


def should_dequantize(spec: ModelSpec, weights: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether to keep so many quantised weights dequantised: `keep_dequantized`, or for 'auto' while the device they
    are on can afford it, that of every process."""
    if spec.keep_dequantized != "auto":
        return spec.keep_dequantized
    return bool(processes.smallest(lambda: hardware.affords(weights * dtype.itemsize, device)))


def quantized_kinds() -> tuple[type[nn.Module], ...]:
    """The classes of bitsandbytes' layers; none where it was never imported, for then no model holds any. A machine
    without it trains plain models as any other."""
    bnb: Any = sys.modules.get("bitsandbytes")
    return (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt) if bnb else ()


def quantized_linears(model: nn.Module) -> dict[str, Any]:
    """The bitsandbytes layers of a model, by name."""
    kinds = quantized_kinds()
    return {n: m for n, m in model.named_modules() if isinstance(m, kinds)}


def is_nf4(layer: nn.Module) -> bool:
    """Whether a layer keeps its weight in four bits."""
    return isinstance(layer, quantized_kinds()[:1])


def count_parameters(model: nn.Module) -> int:
    """How many numbers a model holds, those packed into four bits counted one by one."""
    return sum(numbers_of(parameter) for parameter in model.parameters())


def numbers_of(parameter: Any) -> int:
    """How many a parameter holds: a packed one keeps the shape it had beside its bytes."""
    state = getattr(parameter, "quant_state", None)
    return math.prod(state.shape) if state is not None else parameter.numel()


def quantized_weights(model: nn.Module) -> int:
    """How many weights its bitsandbytes layers hold."""
    return sum(layer.in_features * layer.out_features for layer in quantized_linears(model).values())


def dequantize_weight(layer: Any, dtype: torch.dtype) -> Tensor:
    """The weight (out, in) a bitsandbytes layer computes with."""
    import bitsandbytes as bnb

    weight: Any = layer.weight
    if isinstance(layer, bnb.nn.Linear4bit):
        return bnb.functional.dequantize_4bit(weight.data, weight.quant_state).to(dtype)
    scale = weight.SCB if weight.SCB is not None else layer.state.SCB
    return (weight.data.float() * scale.float().view(-1, 1) / 127).to(dtype)


def dequantize_linears(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Replace every quantised layer by an `nn.Linear` with the values its codes stand for."""
    for name, layer in quantized_linears(model).items():
        has_bias = layer.bias is not None
        linear = nn.Linear(layer.in_features, layer.out_features, bias=has_bias, device="meta", dtype=dtype)
        linear.weight = nn.Parameter(dequantize_weight(layer, dtype), requires_grad=False)
        if has_bias:
            linear.bias = nn.Parameter(layer.bias.data.to(dtype), requires_grad=False)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, linear)
        del layer.weight  # layers form cycles, and would keep theirs until garbage is collected
    # transformers and PEFT treat a model that says it is quantised as one
    model.config.__dict__.pop("quantization_config", None)
    for flag in ("is_quantized", "is_loaded_in_4bit", "is_loaded_in_8bit", "hf_quantizer", "quantization_method"):
        model.__dict__.pop(flag, None)


def notes_on(model: nn.Module, spec: ModelSpec) -> list[str]:
    """A sentence where much of a model stays as it is: bitsandbytes quantises linear layers, and mixtures keep the
    weights of all their experts in one tensor."""
    if spec.quantization == "none":
        return []
    whole = sum(p.numel() for p in model.parameters() if p.ndim > 2)
    share = whole / count_parameters(model)
    if share < WORTH_TELLING:
        return []
    return [
        f"{share:.0%} of the weights stand in tensors that are no linear layers (experts); quantization = "
        f"'{spec.quantization}' does not reach them, so they keep their size"
    ]


def quantize_linears(model: PreTrainedModel, spec: ModelSpec, dtype: torch.dtype) -> None:
    """Replace every linear layer but the head by a bitsandbytes layer, as loading a model with `spec` does."""
    import bitsandbytes as bnb

    head = model.get_output_embeddings()
    linears = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}
    for name, linear in linears.items():
        options: dict[str, Any] = {"bias": linear.bias is not None, "device": "meta"}
        layer: Any
        if spec.quantization == "nf4":
            layer = bnb.nn.Linear4bit(
                linear.in_features, linear.out_features, compute_dtype=dtype, quant_type="nf4", **options
            )
            layer.weight = bnb.nn.Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4", module=layer)
        else:
            layer = bnb.nn.Linear8bitLt(
                linear.in_features,
                linear.out_features,
                has_fp16_weights=False,
                threshold=bitsandbytes_config(spec, dtype).llm_int8_threshold,
                **options,
            )
            layer.weight = bnb.nn.Int8Params(linear.weight.data, requires_grad=False, has_fp16_weights=False)
        layer.bias = linear.bias
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.to(linear.weight.device))
    keep_trainable(model)


def keep_trainable(model: PreTrainedModel) -> None:
    """Switch off the repacking that bitsandbytes does on AVX512-BF16 CPUs at the first forward in evaluation mode.

    It has no gradient: training after an evaluation would go on silently with wrong gradients, and merging or
    dequantising would read garbage.
    """
    for layer in quantized_linears(model).values():
        layer.support_avx512bf16_for_cpu = False


def compute_in(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Let the four-bit layers of a model compute in `dtype`, whatever the files they were stored in say."""
    for layer in quantized_linears(model).values():
        if is_nf4(layer):
            layer.compute_dtype, layer.compute_type_is_set = dtype, True
