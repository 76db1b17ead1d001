"""Large data: `python -m benchmarks.data [--rows N] [--json]` (some three minutes for 1,000,000 rows, 300 MB).

Rows of JSONL are made by a seed, with a known number of exact and near duplicates, of prompts with two answers and of
empty answers. A process of its own reads and divides them (`read_data`), then examines them (`tunelab.examine`).
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from benchmarks.report import Figure, run
from tunelab import DataSpec, examine
from tunelab.data import read_data
from tunelab.machine import hardware

ROWS, HELDOUT = 1_000_000, 0.1
# one row in so many of these is another one again, or one that can't be learned from
SHARES = {"duplicates": 50, "near-duplicates": 40, "conflicts": 100, "empty": 200}
PROMPT_WORDS, ANSWER_WORDS = (6, 16), (12, 34)
LATELY = 10_000  # rows among which one is chosen to be repeated
NAMES = ("Anna", "Björn", "Chloé", "Dmitri", "Elif", "Fatima", "Giovanni", "Hana", "Ivan", "José", "Kwame", "Léa")

Row = dict[str, str]


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        put = write_rows(path, options.rows)
        yield Figure.once("megabytes", "MB", path.stat().st_size / 1e6)
        command = [sys.executable, "-m", "benchmarks.data", "--of", str(path)]
        sides = [
            json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
            for _ in range(options.rounds)
        ]
    total = [one["read"] + one["examine"] for one in sides]
    yield Figure.of("read_seconds", "s", [one["read"] for one in sides])
    yield Figure.of("examine_seconds", "s", [one["examine"] for one in sides])
    yield Figure.of("total_seconds", "s", total)
    yield Figure.of("processor_seconds", "s", [one["processor"] for one in sides])
    yield Figure.of("rows_per_second", "rows/s", [options.rows / seconds for seconds in total])
    yield Figure.of("peak_gigabytes", "GB", [one["peak"] / 1e9 for one in sides])
    yield Figure.once("rows_read_word_by_word", "rows", sides[0]["sampled"])
    for kind, count in put.items():
        yield Figure.once(f"found_over_put:{kind}", "x", sides[0]["found"].get(kind, 0) / max(1, count))


def write_rows(path: Path, count: int, seed: int = 0) -> Counter[str]:
    """Writes rows of JSONL; how many of them are what, by `Finding.kind`, and `empty`."""
    put: Counter[str] = Counter()
    with open(path, "w", encoding="utf-8") as file:
        for kind, row in islice(_rows(random.Random(seed)), count):
            put[kind] += 1
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return Counter({kind: put[kind] for kind in SHARES})


def _rows(draw: random.Random) -> Iterator[tuple[str, Row]]:
    """Rows without end, each with what it is."""
    words = [_word(draw) for _ in range(20_000)]
    weights = [1 / (rank + 20) for rank in range(len(words))]  # few words are frequent, most are rare (Zipf)
    drawn = _drawn(draw, words, weights)
    lately: list[Row] = []
    for number in range(sys.maxsize):
        kind = _kind(draw) if lately else ""
        row = _row(drawn, number, draw)
        if kind == "empty":
            yield kind, row | {"output": ""}
        elif kind:
            # each is repeated once only, so that every repetition is counted once
            first = lately.pop(draw.randrange(len(lately)))
            yield kind, _again(first, kind, row, draw)
        else:
            yield kind, row
            if len(lately) < LATELY:
                lately.append(row)
            else:
                lately[draw.randrange(LATELY)] = row


def _kind(draw: random.Random) -> str:
    chance = draw.random()
    for kind, one_in in SHARES.items():
        if (chance := chance - 1 / one_in) < 0:
            return kind
    return ""


def _row(drawn: Iterator[str], number: int, draw: random.Random) -> Row:
    prompt = " ".join(islice(drawn, draw.randint(*PROMPT_WORDS)))
    answer = list(islice(drawn, draw.randint(*ANSWER_WORDS)))
    for place in range(8, len(answer), 11):  # sentences
        answer[place - 1] += "."
        answer[place] = answer[place].capitalize()
    name = NAMES[number % len(NAMES)]
    return {"instruction": f"{prompt.capitalize()}?", "input": "", "output": f"{name}: {' '.join(answer)}."}


def _again(first: Row, kind: str, other: Row, draw: random.Random) -> Row:
    """The row once more: to the letter, with one word more, or with another answer."""
    if kind == "duplicates":
        return first
    if kind == "conflicts":
        return first | {"output": other["output"]}
    # the prompt changes too: one that is asked twice and answered in two ways would be a conflict
    words = first["instruction"].split()
    words.insert(draw.randrange(1, len(words)), "really")
    return first | {"instruction": " ".join(words)}


def _drawn(draw: random.Random, words: list[str], weights: list[float]) -> Iterator[str]:
    total = 0.0
    cumulative = [total := total + weight for weight in weights]
    while True:
        yield from draw.choices(words, cum_weights=cumulative, k=10_000)


def _word(draw: random.Random) -> str:
    starts, ends = "b c d f g h k l m n p r s st t tr v w z".split(), "a e i o u ai ou ä é en ar is".split()
    return "".join(draw.choice(starts) + draw.choice(ends) for _ in range(draw.randint(1, 4)))


def _side(path: str) -> None:
    """Reads, divides and examines a file, and prints what that took."""
    spec = DataSpec(source=path, heldout=HELDOUT)
    started = time.perf_counter()
    split = read_data(spec)
    read = time.perf_counter() - started
    left_out = next((note for note in split.notes if "without an answer" in note), "0 rows")
    del split
    started = time.perf_counter()
    examined = examine(spec)
    took = time.perf_counter() - started
    found = {finding.kind: finding.count for finding in examined.findings}
    found["empty"] = int(left_out.split()[0].replace(",", ""))
    side = {"read": read, "examine": took, "processor": time.process_time(), "peak": hardware.peak_memory_bytes()}
    print(json.dumps(side | {"sampled": examined.sampled, "found": found}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of the file")
    parser.add_argument("--rounds", type=int, default=1, help="times that they are read")
    parser.add_argument("--of", metavar="FILE", help=argparse.SUPPRESS)
    if "--of" in sys.argv:
        _side(parser.parse_args().of)
    else:
        run(measure, parser)


if __name__ == "__main__":
    main()
