"""What this machine can do, measured, and what follows: `tunelab doctor`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tunelab.machine import files, gpus, hardware
from tunelab.model import starter
from tunelab.run.run import runs_root

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "accelerate",
    "datasets",
    "evaluate",
    "gradio",
    "jupyterlab",
)
# a quick adapter on the starter: 60 steps of 8 rows of about 62 tokens, evaluations included
QUICK_TOKENS = 60 * 8 * 62 * 1.3
# performance.md of the field: 4 N for a frozen body, 6 N for the adapter, the head on a quarter of the tokens
QUICK_FLOPS_PER_TOKEN = 4 * 106.2e6 + 6 * 4.9e6 + 4 * 28.3e6 / 4
EFFICIENCY = 0.45  # share of the measured matrix-product peak that training reaches
STARTUP_SECONDS = 10


def examine(root: str | Path | None = None) -> dict[str, Any]:
    """What was found: sections of facts, `conclusions`, and `problems` with their next step. Never raises for what is
    merely absent."""
    problems: list[str] = []
    sections = {
        "Python": {"version": platform.python_version(), "executable": sys.executable, "system": platform.platform()},
        "packages": _packages(problems),
        "processor": _processor(),
        "memory and disk": _memory_and_disk(root, problems),
        "GPU": _gpu(),
        "models": _models(problems),
    }
    return {"sections": sections, "conclusions": _conclusions(sections["processor"]), "problems": problems}


def render(report: dict[str, Any]) -> str:
    """The report as text for a terminal."""
    lines = []
    for title, facts in (*report["sections"].items(), ("conclusions", report["conclusions"])):
        lines.append(title)
        lines += [f"  {name:<22} {value}" for name, value in facts.items()]
    lines.append("problems" if report["problems"] else "no problems")
    lines += [f"  - {problem}" for problem in report["problems"]]
    return "\n".join(lines)


def _packages(problems: list[str]) -> dict[str, str]:
    pins = _pins()
    found = {}
    for name in PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
            problems.append(f"{name} is not installed. Run `pip install -r requirements.txt`.")
            continue
        pinned = pins.get(name)
        found[name] = version
        if pinned and version.split("+")[0] != pinned:
            found[name] += f" (tested with {pinned})"
            problems.append(f"{name} {version} is installed, tested is {pinned}. Run `pip install {name}=={pinned}`.")
    return found


def _pins() -> dict[str, str]:
    try:
        requirements = importlib.metadata.requires("tunelab") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    return dict(line.split("==", 1) for line in requirements if "==" in line)


def _processor() -> dict[str, Any]:
    import torch

    cores = hardware.physical_cores()
    torch.set_num_threads(cores)
    best = str(hardware.best_cpu_dtype()).removeprefix("torch.")
    facts: dict[str, Any] = {
        "features": " ".join(hardware.cpu_features()) or "unknown",
        "physical cores": cores,
        "fp32 GFLOP/s": round(hardware.gemm_gflops(torch.float32)),
    }
    # a bf16 peak is only worth measuring where bf16 is not emulated
    facts["bf16 GFLOP/s"] = round(hardware.gemm_gflops(torch.bfloat16)) if best == "bfloat16" else "slower than fp32"
    return facts | {"fastest dtype": best}


def _memory_and_disk(root: str | Path | None, problems: list[str]) -> dict[str, str]:
    runs, cache = runs_root(root), files.cache_root()
    free = shutil.disk_usage(_existing(runs)).free
    available = hardware.available_memory_bytes()
    if free < 2e9:
        problems.append(f"Only {free / 1e9:.1f} GB are free for runs ({runs}). Free some, or set TUNELAB_HOME.")
    if available < 3e9:
        problems.append(f"Only {available / 1e9:.1f} GB of memory are available; a quick adapter needs 2 to 3 GB.")
    return {
        "memory": f"{available / 1e9:.1f} GB available of {hardware.total_memory_bytes() / 1e9:.1f} GB",
        "runs": f"{runs} ({free / 1e9:.1f} GB free)",
        "cache": f"{cache} ({shutil.disk_usage(_existing(cache)).free / 1e9:.1f} GB free)",
    }


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _gpu() -> dict[str, str]:
    import torch

    if torch.cuda.is_available():
        return gpus.described()
    if torch.backends.mps.is_available():
        return {"MPS": "there; used only when device is 'mps'"}
    return {"CUDA": "none: training runs on the CPU"}


def _models(problems: list[str]) -> dict[str, str]:
    facts = {}
    cached = starter.cached_path()
    facts["starter"] = str(cached) if cached else "not fetched yet: `python -m tunelab.model.starter` (93 MB)"
    try:
        import bitsandbytes

        facts["bitsandbytes"] = f"{bitsandbytes.__version__} loads: nf4 and int8 are possible"
    except (ImportError, OSError, RuntimeError) as error:
        facts["bitsandbytes"] = f"does not load: {error}"
        problems.append(
            "bitsandbytes does not load on this machine, so nf4 and int8 don't work: use quantization 'none'."
        )
    facts["Hugging Face Hub"] = _hub()
    return facts


def _hub() -> str:
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return "switched off (HF_HUB_OFFLINE); the starter and built-in data work"
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=3)
    except urllib.error.HTTPError:
        pass  # it answered
    except (OSError, ValueError):
        return "can't be reached; the starter and built-in data work"
    return "can be reached"


def _conclusions(processor: dict[str, Any]) -> dict[str, str]:
    import torch

    dtype, cores = processor["fastest dtype"], processor["physical cores"]
    peak = processor["bf16 GFLOP/s"] if dtype == "bfloat16" else processor["fp32 GFLOP/s"]
    seconds = STARTUP_SECONDS + QUICK_TOKENS * QUICK_FLOPS_PER_TOKEN / (peak * 1e9 * EFFICIENCY)
    if torch.cuda.is_available():
        dtype = str(gpus.half_precision(torch.cuda.current_device())).removeprefix("torch.")
        return {"device": "cuda", "dtype": f"{dtype} (by the card: bfloat16 from Ampere on, else float16)"}
    return {
        "device": "cpu",
        "dtype": dtype,
        "threads": str(cores),
        "a quick adapter": f"about {seconds / 60:.1f} minutes (estimate: {QUICK_TOKENS:,.0f} tokens of "
        f"{QUICK_FLOPS_PER_TOKEN / 1e9:.2f} GFLOP at {EFFICIENCY:.0%} of {peak:,} GFLOP/s)",
    }
