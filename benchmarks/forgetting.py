"""What a narrow run forgets, and what replay and a pull towards the base save:
`python -m benchmarks.forgetting --data train.csv --heldout test.csv`.

Each of `plain`, `replay` (a share of general examples) and `kl` is trained with several seeds and the same steps, and
measured on the same rows. A run takes a quarter of an hour; each that is done is a line of `forgetting.jsonl` beside
this file, so that the table can be made on several days, and on several machines of a kind. `--replay` and `--kl` of
other strengths are other runs. Figures are those of the runs with these settings that are there.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy

from benchmarks.report import Figure, machine, run
from tunelab.machine import libraries

libraries.prepare()

from benchmarks import labelled  # noqa: E402
from tunelab import Sweep, SweepConfig, climb  # noqa: E402
from tunelab.measure.answered import read_rows  # noqa: E402
from tunelab.measure.statistics import Paired, spread  # noqa: E402
from tunelab.measure.statistics.bootstrap import resampled  # noqa: E402

MEASURED = Path(__file__).parent / "forgetting.jsonl"
MAX_NEW_TOKENS = 24


@dataclass(frozen=True)
class Measured:
    """A run, and what came out of it."""

    way: str
    settings: dict[str, float]  # fields of `TrainConfig` beside the steps
    seed: int
    steps: int
    rows: int
    data: str  # which rows to train on and to measure on: SHA-256 of both files
    machine: str
    forgetting: float  # nats per token
    heldout_loss: float
    exact_match: float  # per cent
    scored: int  # rows that are left without those that were trained on
    right: str  # which of them were answered right, a bit each, in base 64

    @property
    def same(self) -> tuple[Any, ...]:
        """What is the same for a run that need not be made again."""
        return _same(self.way, self.settings, self.seed, self.steps, self.rows, self.data)

    @property
    def scores(self) -> numpy.ndarray:
        """1 or 0 for each row that is scored."""
        bits = numpy.frombuffer(base64.b64decode(self.right), dtype=numpy.uint8)
        return numpy.unpackbits(bits)[: self.scored].astype(float)


def _same(*asked: Any) -> tuple[Any, ...]:
    return tuple(json.dumps(one, sort_keys=True) for one in asked)


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    ways: dict[str, dict[str, float]] = {
        "plain": {},
        "replay": {"replay_share": options.replay},
        "kl": {"kl_weight": options.kl},
    }
    data = hashlib.sha256(Path(options.data).read_bytes() + Path(options.heldout).read_bytes()).hexdigest()[:16]
    known = {one.same: one for one in read(options.measured)}
    found: dict[str, list[Measured]] = {name: [] for name in ways}
    for seed, name in itertools.product(range(options.seeds), ways):
        same = _same(name, ways[name], seed, options.steps, options.rows, data)
        if same not in known and name in options.train:
            known[same] = _measured(options, name, ways[name], seed, data)
            with open(options.measured, "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(known[same])) + "\n")
        if same in known:
            found[name].append(known[same])
    yield from figures(found)


def read(path: Path) -> list[Measured]:
    if not path.is_file():
        return []
    return [Measured(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _measured(options: argparse.Namespace, name: str, settings: dict[str, float], seed: int, data: str) -> Measured:
    config = labelled.config(options, name, **settings)
    asked = SweepConfig(run=config, seeds=(seed,), rows=options.rows, max_new_tokens=MAX_NEW_TOKENS)
    strengths = "-".join(map(str, settings.values()))
    sweep = Sweep.create(asked, options.out / "-".join(filter(None, (name, strengths, str(seed)))), options.out)
    for _rung in climb(sweep):
        pass
    (rung,) = sweep.rungs()
    report = rung.report
    assert report is not None, f"{name}, seed {seed}: {rung}"
    rows = read_rows(sweep.root / str(rung.run) / str(report.answers_file))
    right = numpy.array([row.tuned_scores["exact_match"] > 0 for row in rows])
    return Measured(
        name, settings, seed, options.steps, options.rows, data, machine(), report.general_loss.change.value,
        report.heldout_loss.tuned, report.metrics["exact_match"].tuned,
        len(right),
        base64.b64encode(numpy.packbits(right).tobytes()).decode(),
    )  # fmt: skip


def figures(found: dict[str, list[Measured]]) -> Iterator[Figure]:
    for name, runs in found.items():
        if runs:
            yield _of(f"{name}:forgetting", "nats", [one.forgetting for one in runs])
            yield _of(f"{name}:held-out loss", "nats", [one.heldout_loss for one in runs])
            yield _of(f"{name}:exact match", "%", [one.exact_match for one in runs])
    for name in ("replay", "kl"):
        pairs = [
            (one, other) for one, other in itertools.product(found["plain"], found[name]) if one.seed == other.seed
        ]
        if pairs:
            yield _against(f"{name} less plain:exact match", pairs)


def _of(name: str, unit: str, values: Sequence[float]) -> Figure:
    return Figure(name, sum(values) / len(values), unit, min(values), max(values), len(values))


def _against(name: str, pairs: Sequence[tuple[Measured, Measured]]) -> Figure:
    """The difference of exact match over rows and seeds, with its 95 % interval; of one seed, that over its rows."""
    differences = numpy.array([100 * (other.scores - plain.scores) for plain, other in pairs])  # (seeds, rows)
    paired = Paired.of_scores([0.0] * differences.shape[1], differences.mean(axis=0).tolist())
    bootstrap = resampled(paired.columns, paired.gain_of)
    low, high = bootstrap.ends(0.95)
    if len(pairs) > 1:
        found = spread([float(row.mean()) for row in differences], bootstrap.error)
        low, high = found.widened(paired.gain, (low, high), 0.05)
    return Figure(name, paired.gain, "points", low, high, differences.shape[1])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forgetting", description=__doc__)
    labelled.add_flags(parser, rows=3080)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--replay", type=float, default=0.2)
    parser.add_argument("--kl", type=float, default=0.1)
    parser.add_argument(
        "--train", nargs="*", default=["plain", "replay", "kl"], help="ways to train where runs are missing"
    )
    parser.add_argument("--measured", type=Path, default=MEASURED, help="where runs that are done stand")
    parser.set_defaults(out=Path("forgetting"))
    run(measure, parser)


if __name__ == "__main__":
    main()
