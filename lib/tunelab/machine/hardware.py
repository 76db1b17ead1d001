"""What this machine can do, measured rather than guessed from its name: precision, cores, memory.

`best_cpu_dtype()` decides what models are loaded in, `best_cpu_attention()` how the plain path attends. Both are
measured on one core, in its own time, and kept on disk (`measured`): whether a CPU has instructions for bfloat16 or has
to emulate them shows on one core as on all. Whatever decides by memory asks for the device that the tensors are on.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tunelab.machine import containers, processes
from tunelab.machine.measured import measured, own_seconds

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# the projections of the starter, (out, in): what a GEMM peak has to be measured on
PROJECTIONS = ((1536, 576), (576, 1536), (576, 576), (192, 576))
CLEARLY_FASTER = 1.2
DTYPES = ("float32", "bfloat16")
ATTENTIONS = ("eager", "sdpa")


def physical_cores() -> int:
    """Physical cores this process may use: no more than its affinity mask or its container's quota allows."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(psutil.cpu_count(logical=False) or allowed, allowed)
    return max(1, min(cores, int(containers.cpus() or cores)))


def threads() -> int:
    """Threads for this process to compute with: its share of the cores, where `torchrun` has started several here."""
    return max(1, physical_cores() // processes.on_this_machine())


def total_memory_bytes() -> int:
    """Memory of the machine, or of the container if that is less."""
    return min(psutil.virtual_memory().total, containers.memory_limit_bytes() or sys.maxsize)


def available_memory_bytes(device: torch.device | None = None) -> int:
    """Memory of a device that can be had now; without one, or for a CPU, memory of the machine without swapping."""
    if device is not None and device.type == "cuda":
        import torch

        free, _total = torch.cuda.mem_get_info(device)
        # freed by tensors, and kept by PyTorch for the next ones
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = psutil.virtual_memory().available
    limited = containers.free_memory_bytes()
    free = free if limited is None else min(free, limited)
    if device is not None and device.type == "mps":  # the machine's memory, of which a GPU may take a part
        import torch

        return min(free, torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return free


def reachable_memory_bytes(device: torch.device) -> int:
    """Memory of a device that this process can have in all: what is free, and what it holds already, for tensors on a
    GPU, for everything on a CPU."""
    import torch

    held = {"cuda": torch.cuda.memory_allocated, "mps": lambda _device: torch.mps.current_allocated_memory()}
    return available_memory_bytes(device) + held.get(device.type, lambda _device: resident_bytes())(device)


def affords(count: int, device: torch.device) -> bool:
    """Whether so many bytes of a device may be spent on speed: less than a quarter of what is free there."""
    return count < available_memory_bytes(device) / 4


def resident_bytes() -> int:
    """Memory this process holds now."""
    return psutil.Process().memory_info().rss


def peak_memory_bytes() -> int:
    """The most memory this process has held at a time."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    if sys.platform == "linux":
        # ru_maxrss of a process begins at what its parent held when it started it; this line does not
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def gpu_peak_memory_bytes() -> int:
    """The most memory tensors of this process have held on its CUDA GPU since `forget_gpu_peak`; 0 without one."""
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


def forget_gpu_peak() -> None:
    """Count `gpu_peak_memory_bytes` from now on: an earlier run of this process is not part of the next one."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def release_free_memory() -> None:
    """Give memory that is free, but scattered between what is used, back to the system (glibc alone keeps it)."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim:
            trim(0)


def cpu_features() -> tuple[str, ...]:
    """The instruction sets that matter for matrix products, as far as the system names them."""
    known = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16", "asimd", "bf16", "i8mm")
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ()
    flags = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "").split()
    return tuple(name for name in known if name in flags)


@functools.cache
def best_cpu_dtype() -> torch.dtype:
    """bfloat16 where its matrix products are clearly faster than float32's on this CPU, else float32."""
    import torch

    return getattr(torch, measured("dtype", {}, measure_dtype, lambda kept: kept in DTYPES))


@functools.cache
def best_cpu_attention(dtype: torch.dtype) -> str:
    """'eager' or 'sdpa': which attention's forward and backward is faster on this CPU, on the starter's heads.

    The backward of PyTorch's fused attention in bf16 can take several times as long as plain products; 'sdpa' has to be
    clearly faster to be chosen.
    """
    key = {"dtype": str(dtype)}
    return measured("attention", key, lambda: measure_attention(dtype), lambda kept: kept in ATTENTIONS)


def measure_dtype() -> str:
    """'bfloat16' or 'float32'. Without AVX512-BF16 or AMX a bf16 product can take hundreds of times longer
    (pytorch#146508), so a small one goes first and decides alone when it is slow."""
    import torch

    def products(rows: int) -> list[Callable[[], object]]:
        return [_product(dtype, rows) for dtype in (torch.float32, torch.bfloat16)]

    single, half = own_seconds(*products(16), turns=2)
    if half > 4 * single:
        return "float32"
    single, half = own_seconds(*products(256), turns=6)
    return "bfloat16" if half * CLEARLY_FASTER < single else "float32"


def _product(dtype: torch.dtype, rows: int) -> Callable[[], object]:
    """x (rows, in) · Wᵀ (in, out), computed once to warm up."""
    import torch

    out, inputs = PROJECTIONS[0]
    x, weight = (torch.randn(size, dtype=torch.float32).to(dtype) for size in ((rows, inputs), (out, inputs)))
    torch.nn.functional.linear(x, weight)
    return lambda: torch.nn.functional.linear(x, weight)


def measure_attention(dtype: torch.dtype) -> str:
    """'eager' or 'sdpa', for rows of 64 tokens."""
    import torch

    q, k, v = (torch.randn(8, 9, 64, 64, dtype=dtype, requires_grad=True) for _ in range(3))
    ahead = torch.full((64, 64), float("-inf"), dtype=dtype).triu(1)

    def eager() -> Tensor:
        return torch.softmax(q @ k.transpose(2, 3) * 0.125 + ahead, dim=-1, dtype=torch.float32).to(dtype) @ v

    def sdpa() -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    plain, fused = own_seconds(lambda: eager().sum().backward(), lambda: sdpa().sum().backward(), turns=5)
    return "sdpa" if fused * 1.5 < plain else "eager"


def gemm_gflops(dtype: torch.dtype, rows: int = 512, budget_seconds: float = 0.05) -> float:
    """The best rate, in GFLOP/s, over the starter's projection shapes at `rows` tokens: 2·m·n·k over the seconds."""
    return max(
        2 * rows * shape[0] * shape[1] / _seconds_of_product(dtype, shape, rows, budget_seconds) / 1e9
        for shape in PROJECTIONS
    )


def _seconds_of_product(dtype: torch.dtype, shape: tuple[int, int], rows: int, budget_seconds: float) -> float:
    """The fastest of the products x (rows, in) · Wᵀ (in, out) that fit into the budget, after one to warm up."""
    import torch

    x, weight = (torch.randn(size, dtype=torch.float32).to(dtype) for size in ((rows, shape[1]), shape))
    torch.nn.functional.linear(x, weight)
    best, end = float("inf"), time.perf_counter() + budget_seconds
    while True:
        started = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        best = min(best, time.perf_counter() - started)
        if time.perf_counter() > end:
            return best
