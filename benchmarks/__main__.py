"""Every benchmark, one after the other, into `benchmarks/RESULTS.md`: `make bench` (about an hour).

`python -m benchmarks NAME …` measures some of them anew and leaves the other sections as they are. Those on files of
your own are asked for alone, with their flags: `python -m benchmarks evaluation --data train.csv --heldout test.csv`.
`python -m benchmarks NAME --help` tells the flags of one.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import machine
from tunelab.errors import EXIT_USER_ERROR
from tunelab.machine import libraries

NAMES = (
    "startup",
    "quickstart",
    "train_speed",
    "time_to_loss",
    "families",
    "switches",
    "generation",
    "page_cost",
    "app_load",
    "first_verdict",
    "many_adapters",
    "memory",
    "data",
    "sets",
    "votes",
    "probe",
    "verdict",
)
ON_FILES = ("evaluation", "forgetting")
FOLDER = Path(__file__).parent
RESULTS, LEFT_OUT = FOLDER / "RESULTS.md", FOLDER / "left_out.md"


HEADING = """# Results

The tables are written by `python -m benchmarks`, nothing in them was typed. What the figures mean stands in
[README.md](README.md). Values are medians, low and high the range of n turns."""


def main() -> int:
    """Run the benchmarks named on the command line, or all; the exit code."""
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), sys.argv[1:]))
    flags = sys.argv[1 + len(names) :]
    if refusal := _refusal(names, flags):
        print(refusal, file=sys.stderr)
        return EXIT_USER_ERROR
    if {"-h", "--help"} & set(flags):
        return _help(names)
    libraries.prepare()
    sections = _sections()
    for name in names or NAMES:
        lines = [f"Machine: {machine()}", "", "| figure | value | unit | low | high | n |", "|---|---|---|---|---|---|"]
        if flags:
            shown = " ".join(Path(word).name for word in flags)
            lines.insert(0, f"`python -m benchmarks.{name} {shown}`\n")
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", *flags]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                row = json.loads(line)
                value, low, high = (f"{row[key]:.4g}" for key in ("value", "low", "high"))
                lines.append(f"| `{row['figure']}` | {value} | {row['unit']} | {low} | {high} | {row['n']} |")
        if process.returncode:
            return process.returncode
        sections[name] = "\n".join(lines)
        _write(sections)
    return 0


def _refusal(names: Sequence[str], flags: Sequence[str]) -> str | None:
    """Why nothing is measured, in a sentence; None: it can be."""
    every = ", ".join((*NAMES, *ON_FILES))
    unknown = next((name for name in names if name not in (*NAMES, *ON_FILES)), None)
    if unknown is not None:
        return f"There is no benchmark {unknown!r} that writes into {RESULTS.name}. There are {every}."
    if flags and not {"-h", "--help"} & set(flags) and len(names) != 1:
        named = f"{len(names)} are named" if names else "none is named"
        return f"{flags[0]} is a flag of one benchmark, and {named}. Name one before it: {every}."
    return None


def _help(names: Sequence[str]) -> int:
    """Tell the flags of the benchmarks that are named, or which there are; the exit code."""
    if not names:
        print(f"{(__doc__ or '').strip()}\n\nBenchmarks: {', '.join((*NAMES, *ON_FILES))}")
    return max(
        (subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--help"]).returncode for name in names), default=0
    )


def _sections() -> dict[str, str]:
    """What was measured before, by benchmark; also what was read elsewhere and written beside it."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else ""
    parts = (part.partition("\n") for part in text.split("\n## ")[1:])
    left_out = re.findall(r"^## (.*)$", LEFT_OUT.read_text(encoding="utf-8"), re.M)
    return {name.strip(): body.strip() for name, _, body in parts if name.strip() not in left_out}


def _write(sections: dict[str, str]) -> None:
    known = [name for name in (*NAMES, *ON_FILES) if name in sections]
    order = [*known, *(name for name in sections if name not in known)]
    parts = [HEADING, *(f"## {name}\n\n{sections[name]}" for name in order)]
    RESULTS.write_text("\n\n".join([*parts, LEFT_OUT.read_text(encoding="utf-8").strip()]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
