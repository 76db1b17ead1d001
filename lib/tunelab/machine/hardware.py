"""What this machine can do, measured rather than guessed from its name: precision, cores, memory.

`best_cpu_dtype()` decides what models are loaded in; `tunelab doctor` prints the rest.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

# the projections of the starter, (out, in): what a GEMM peak has to be measured on
PROJECTIONS = ((1536, 576), (576, 1536), (576, 576), (192, 576))
CLEARLY_FASTER = 1.2


def physical_cores() -> int:
    """Physical cores this process may use: no more than its affinity mask or its container's quota allows."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(psutil.cpu_count(logical=False) or allowed, allowed)
    return max(1, min(cores, int(_cgroup_cpus() or cores)))


def _cgroup_cpus() -> float | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def total_memory_bytes() -> int:
    """Memory of the machine, or of the container if that is less."""
    return min(psutil.virtual_memory().total, _cgroup_bytes("memory.max") or sys.maxsize)


def available_memory_bytes() -> int:
    """Memory that can be had now without swapping."""
    available = psutil.virtual_memory().available
    limit, used = _cgroup_bytes("memory.max"), _cgroup_bytes("memory.current")
    return min(available, limit - used) if limit and used else available


def affords(count: int) -> bool:
    """Whether so many bytes may be spent on speed: a quarter of what is free."""
    return count < available_memory_bytes() / 4


def _cgroup_bytes(name: str) -> int | None:
    try:
        text = Path("/sys/fs/cgroup", name).read_text().strip()
        return None if text == "max" else int(text)
    except (OSError, ValueError):
        return None


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
    """The most memory tensors of this process have held on its CUDA GPU; 0 without one."""
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


def release_free_memory() -> None:
    """Give memory that is free, but scattered between what is used, back to the system (glibc alone keeps it)."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim:
            trim(0)


def cpu_features() -> tuple[str, ...]:
    """The instruction sets that matter for matrix products, as far as the system names them."""
    wanted = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16", "asimd", "bf16", "i8mm")
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ()
    flags = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "").split()
    return tuple(name for name in wanted if name in flags)


@functools.cache
def best_cpu_dtype() -> torch.dtype:
    """bfloat16 where its matrix products are clearly faster than float32's on this CPU, else float32.

    Without AVX512-BF16 or AMX a bf16 product can take hundreds of times longer (pytorch#146508), so a small one goes
    first and decides alone when it is slow.
    """
    import torch

    best: dict[torch.dtype, float] = {}
    for rows in (16, 256, 256, 256, 256, 256):
        # in turns, and the best of each counts: another process on the machine must not decide
        for dtype in (torch.float32, torch.bfloat16):
            seconds = _seconds_of_product(dtype, PROJECTIONS[0], rows, budget_seconds=0.005)
            best[dtype] = seconds if rows == 16 else min(best[dtype], seconds)
        if best[torch.bfloat16] > 4 * best[torch.float32]:
            return torch.float32
        if rows == 16:
            best = dict.fromkeys(best, float("inf"))
    return torch.bfloat16 if best[torch.bfloat16] * CLEARLY_FASTER < best[torch.float32] else torch.float32


@functools.cache
def best_cpu_attention(dtype: torch.dtype) -> str:
    """'eager' or 'sdpa': which attention's forward and backward is faster on this CPU, on the starter's heads.

    The backward of PyTorch's fused attention in bf16 can take several times as long as plain products; 'sdpa' has to be
    clearly faster to be chosen, so that a run does not change with the wind.
    """
    import torch

    q, k, v = (torch.randn(8, 9, 64, 64, dtype=dtype, requires_grad=True) for _ in range(3))
    ahead = torch.full((64, 64), float("-inf"), dtype=dtype).triu(1)

    def eager() -> torch.Tensor:
        return torch.softmax(q @ k.transpose(2, 3) * 0.125 + ahead, dim=-1, dtype=torch.float32).to(dtype) @ v

    def sdpa() -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    best = {eager: float("inf"), sdpa: float("inf")}
    threads = torch.get_num_threads()
    # one thread and its own time: else another process on the machine would be what is measured
    torch.set_num_threads(1)
    for _ in range(4):
        for attend in best:
            started = time.thread_time()
            attend().sum().backward()
            best[attend] = min(best[attend], time.thread_time() - started)
    torch.set_num_threads(threads)
    return "sdpa" if best[sdpa] * 1.5 < best[eager] else "eager"


def gemm_gflops(dtype: torch.dtype, rows: int = 512, budget_seconds: float = 0.05) -> float:
    """The best rate, in GFLOP/s, over the starter's projection shapes at `rows` tokens: 2·m·n·k over the seconds."""
    return max(
        2 * rows * shape[0] * shape[1] / _seconds_of_product(dtype, shape, rows, budget_seconds) / 1e9
        for shape in PROJECTIONS
    )


def _seconds_of_product(dtype: torch.dtype, shape: tuple[int, int], rows: int, budget_seconds: float) -> float:
    """The fastest of the products x (rows, in) · Wᵀ (in, out) that fit into the budget, after one to warm up."""
    import torch

    x, weight = torch.randn(rows, shape[1]).to(dtype), torch.randn(shape).to(dtype)
    torch.nn.functional.linear(x, weight)
    best, end = float("inf"), time.perf_counter() + budget_seconds
    while True:
        started = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        best = min(best, time.perf_counter() - started)
        if time.perf_counter() > end:
            return best
