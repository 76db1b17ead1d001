"""What the machine is said to do is what this process does."""

from __future__ import annotations

import subprocess
import sys

from tunelab.machine import hardware

PRINT_PEAK = "from tunelab.machine import hardware; print(hardware.peak_memory_bytes())"


def test_the_peak_is_of_this_process_however_much_its_parent_holds():
    held = bytearray(b"1" * 400_000_000)
    child = subprocess.run([sys.executable, "-c", PRINT_PEAK], capture_output=True, text=True, check=True)
    assert 5e6 < int(child.stdout) < 200e6
    assert hardware.peak_memory_bytes() > len(held)


def test_attention_and_precision_are_chosen_once_and_exist():
    dtype = hardware.best_cpu_dtype()
    assert hardware.best_cpu_attention(dtype) in ("eager", "sdpa")
    assert hardware.best_cpu_attention(dtype) == hardware.best_cpu_attention(dtype)
