"""How every benchmark reports: one object per figure, as a table or as JSON lines, with the machine it was read on."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from tunelab.machine import hardware


@dataclass(frozen=True)
class Figure:
    figure: str
    value: float
    unit: str
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, name: str, unit: str, values: Sequence[float]) -> Figure:
        """The median of repeated measurements, with their range."""
        return cls(name, statistics.median(values), unit, min(values), max(values), len(values))

    @classmethod
    def once(cls, name: str, unit: str, value: float) -> Figure:
        return cls(name, value, unit, value, value, 1)


def machine() -> str:
    """The machine in one line."""
    import torch

    features = set(hardware.cpu_features())
    kind = "AMX" if "amx_bf16" in features else "AVX512-BF16" if "avx512_bf16" in features else "no bf16"
    rates = {d: hardware.gemm_gflops(getattr(torch, d), budget_seconds=0.2) for d in ("float32", "bfloat16")}
    peaks = ", ".join(f"{dtype} {rate:.0f} GFLOP/s" for dtype, rate in rates.items())
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{hardware.physical_cores()} cores ({kind}), {peaks}, {hardware.total_memory_bytes() / 1e9:.0f} GB{gpu}"


def needs_gpu(why: str) -> None:
    """End with a sentence where there is no CUDA GPU."""
    import torch

    if not torch.cuda.is_available():
        sys.exit(f"No CUDA GPU is here, and {why}.")


def run(measure: Callable[[argparse.Namespace], Iterable[Figure]], parser: argparse.ArgumentParser) -> None:
    """Measure and print each figure as soon as it is there."""
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    options = parser.parse_args()
    if not options.json:
        print(f"machine: {machine()}")
        print(f"{'figure':<28} {'value':>10} {'unit':<10} {'low':>10} {'high':>10} {'n':>4}", flush=True)
    for figure in measure(options):
        if options.json:
            print(json.dumps(asdict(figure)), flush=True)
        else:
            numbers = f"{figure.value:>10.4g} {figure.unit:<10} {figure.low:>10.4g} {figure.high:>10.4g}"
            print(f"{figure.figure:<28} {numbers} {figure.n:>4}", flush=True)


def repeated(times: int, measure: Callable[[], float]) -> Iterator[float]:
    for _ in range(times):
        yield measure()
