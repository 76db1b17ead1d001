"""What a narrow run forgets, and what replay and a pull towards the base save:
`python -m benchmarks.forgetting --data train.csv --heldout test.csv [--out forgetting]`.

Each of `plain`, `replay` (a share of general rows) and `kl` is trained with several seeds and the same steps, and
measured on the same rows. It takes hours; the same `--out` goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy

from benchmarks.report import Figure, run
from tunelab.machine import libraries

libraries.prepare()

from benchmarks import labelled  # noqa: E402
from tunelab import Sweep, SweepConfig, climb  # noqa: E402
from tunelab.measure.answered import read_rows  # noqa: E402
from tunelab.measure.statistics import Paired, spread  # noqa: E402
from tunelab.measure.statistics.bootstrap import resampled  # noqa: E402
from tunelab.run.reports import Report  # noqa: E402


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    ways = {"plain": {}, "replay": {"replay_share": options.replay}, "kl": {"kl_weight": options.kl}}
    sweeps: dict[str, Sweep] = {}
    for name, settings in ways.items():
        config = labelled.config(options, name, **settings)
        asked = SweepConfig(run=config, seeds=tuple(range(options.seeds)), rows=options.rows, max_new_tokens=24)
        sweeps[name] = Sweep.create(asked, options.out / name, options.out)
        for _rung in climb(sweeps[name]):
            pass
        yield from _figures(name, sweeps[name])
    for name in ("replay", "kl"):
        yield _against(f"{name} less plain:exact match", sweeps["plain"], sweeps[name])


def _reports(sweep: Sweep) -> list[Report]:
    return [rung.report for rung in sweep.rungs() if rung.report]


def _figures(name: str, sweep: Sweep) -> Iterator[Figure]:
    reports = _reports(sweep)
    yield _of(f"{name}:forgetting", "nats", [report.general_loss.change.value for report in reports])
    yield _of(f"{name}:held-out loss", "nats", [report.heldout_loss.tuned for report in reports])
    yield _of(f"{name}:exact match", "%", [report.metrics["exact_match"].tuned for report in reports])
    yield _of(f"{name}:seconds of training", "s", [rung.seconds or 0.0 for rung in sweep.rungs()])


def _of(name: str, unit: str, values: Sequence[float]) -> Figure:
    return Figure(name, sum(values) / len(values), unit, min(values), max(values), len(values))


def _against(name: str, plain: Sweep, other: Sweep) -> Figure:
    """The difference of exact match over rows and seeds, with its 95 % interval."""
    scores = {
        who: [
            [
                row.tuned_scores["exact_match"]
                for row in read_rows(sweep.root / str(rung.run) / str(rung.report.answers_file))
            ]
            for rung in sweep.rungs()
            if rung.report
        ]
        for who, sweep in (("plain", plain), ("other", other))
    }
    differences = numpy.array(scores["other"]) - numpy.array(scores["plain"])  # (seeds, rows)
    paired = Paired.of_scores([0.0] * differences.shape[1], differences.mean(axis=0).tolist())
    bootstrap = resampled(paired.columns, paired.gain_of)
    found = spread([float(row.mean()) for row in differences], bootstrap.error)
    low, high = found.widened(paired.gain, bootstrap.ends(0.95), 0.05)
    return Figure(name, paired.gain, "points", low, high, differences.shape[1])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forgetting", description=__doc__)
    labelled.add_flags(parser, rows=3080)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--replay", type=float, default=0.2)
    parser.add_argument("--kl", type=float, default=0.3)
    parser.set_defaults(out=Path("forgetting"))
    run(measure, parser)


if __name__ == "__main__":
    main()
