"""Every benchmark, one after the other, into `benchmarks/RESULTS.md`: `make bench` (about an hour)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.report import machine
from tunelab import libraries

NAMES = ("quickstart", "train_speed")
RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> int:
    """Run the benchmarks named on the command line, or all; the exit code."""
    libraries.prepare()
    lines = [
        "# Results",
        "",
        "Written by `python -m benchmarks`; nothing here was typed. What the figures mean stands in "
        "[README.md](README.md).",
        "",
        f"Machine: {machine()}",
    ]
    for name in sys.argv[1:] or NAMES:
        lines += ["", f"## {name}", "", "| figure | value | unit | low | high | n |", "|---|---|---|---|---|---|"]
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                row = json.loads(line)
                value, low, high = (f"{row[key]:.4g}" for key in ("value", "low", "high"))
                lines.append(f"| `{row['figure']}` | {value} | {row['unit']} | {low} | {high} | {row['n']} |")
        if process.returncode:
            return process.returncode
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
