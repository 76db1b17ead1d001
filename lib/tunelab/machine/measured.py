"""What is chosen by measurement, and stays chosen: measured once for this machine and this PyTorch, and kept on disk.

A stopwatch measures whatever else runs on the machine as well, and a run would keep the wrong choice to its end. So
`own_seconds` counts only the time in which this thread computed, and `measured` asks the disk first: the second process
chooses as the first one did. What is kept there may be damaged or can't be written: then it is measured again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from tunelab.machine import containers
from tunelab.machine.files import cache_root, write_atomically

T = TypeVar("T")
KEEP = 200  # answers on disk; those not asked for the longest are forgotten
# what a processor is, as Linux names it on x86 and ARM; other lines change from second to second
CPU_FACTS = (
    *("vendor_id", "cpu family", "model", "model name", "stepping", "flags"),
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features"),
)
# settings that give PyTorch's libraries other instructions to compute with
INSTRUCTIONS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY")


def measured(name: str, key: dict[str, Any], measure: Callable[[], T], valid: Callable[[Any], bool]) -> T:
    """What `measure()` gives, from disk where it has been asked on such a machine before: a value that JSON can hold.

    `name` and `key` (JSON) say what is asked, the machine is added; what is kept counts if it is `valid`. Random
    numbers drawn to measure do not count: those after it are the same, whether it was measured or on disk.
    """
    import torch

    asked = json.dumps({"what": name, **key, "machine": machine()}, sort_keys=True)
    folder = cache_root() / "measured"
    path = folder / f"{name}-{hashlib.sha256(asked.encode()).hexdigest()[:16]}.json"
    with suppress(OSError, ValueError, LookupError, TypeError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["asked"] == json.loads(asked) and valid(kept["value"]):
            os.utime(path)
            return kept["value"]
    with torch.random.fork_rng([]):
        value = measure()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"asked": json.loads(asked), "value": value}, indent=1))
        for old in sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime)[:-KEEP]:
            old.unlink(missing_ok=True)
    return value


def machine() -> dict[str, Any]:
    """What measurements depend on: PyTorch, the processor with its instruction sets, and which of its cores this
    process may use."""
    import torch

    return {
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cpu": _cpu(),
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "quota": containers.cpus(),
        "settings": {name: os.environ[name] for name in INSTRUCTIONS if name in os.environ},
    }


def _cpu() -> dict[str, str]:
    found: dict[str, str] = {"system": f"{sys.platform} {platform.machine()}"}
    if sys.platform == "darwin":
        with suppress(OSError, subprocess.SubprocessError):
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            found["model name"] = subprocess.run(command, capture_output=True, text=True, timeout=5).stdout.strip()
        return found
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in CPU_FACTS:
                found.setdefault(name.strip(), value.strip())
        return found
    return found | {"model name": platform.processor()}


def own_seconds(*works: Callable[[], object], turns: int) -> list[float]:
    """The least seconds of its own time that this thread needs for each of the works, of so many turns, on one core:
    while another process has the core, that time stands still. They take turns, so that what slows the core down for a
    while (heat, memory that others read) slows all of them."""
    import torch

    best = [math.inf] * len(works)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several would wait for each other while another process has the cores
    try:
        for _ in range(turns):
            for place, work in enumerate(works):
                best[place] = min(best[place], _seconds_of_thread(work))
    finally:
        torch.set_num_threads(threads)
    return best


def _seconds_of_thread(work: Callable[[], object]) -> float:
    enough = 0.3 if sys.platform == "win32" else 0.0  # whose clock of a thread moves 64 times a second
    count, started, spent = 0, time.thread_time(), 0.0
    while spent <= enough:
        work()
        count += 1
        spent = time.thread_time() - started
    return spent / count
