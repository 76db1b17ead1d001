"""How long a measurement takes, and whether written answers and likelihoods of labels agree:
`python -m benchmarks.evaluation --data train.csv --heldout test.csv [--run RUN]`.

For files with labels. A run is trained (LoRA on the built-in model in NF4, `--steps` of 8 rows), or `--run` names one
that was; then base and tuned answer `--rows` held-out rows, by writing and by the likelihood of every label, with
nothing known from before.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.report import Figure, run
from tunelab.machine import libraries

libraries.prepare()

from benchmarks import labelled  # noqa: E402
from tunelab import Run, evaluate, finetune  # noqa: E402
from tunelab.measure.known import FILE, bases_folder  # noqa: E402


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        trained = _trained(options, options.out or Path(folder))
        found = {}
        for by in ("answer", "likelihood"):
            _forget(trained)
            started = time.perf_counter()
            report = evaluate(
                trained, rows=options.rows, max_new_tokens=options.max_new_tokens, questions=options.questions, by=by
            )
            yield Figure.once(f"{by}:seconds", "s", time.perf_counter() - started)
            figure = found[by] = report.metrics["exact_match"]
            yield Figure(f"{by}:base", figure.base, "%", figure.base, figure.base, report.rows)
            yield Figure(f"{by}:tuned", figure.tuned, "%", figure.tuned, figure.tuned, report.rows)
            print(f"{by}: {report.sentence}", flush=True) if not options.json else None
        started = time.perf_counter()
        evaluate(trained, rows=options.rows, max_new_tokens=options.max_new_tokens, questions=options.questions, by=by)
        yield Figure.once("again:seconds", "s", time.perf_counter() - started)
        yield Figure.once("tuned, answer less likelihood", "points", found["answer"].tuned - found["likelihood"].tuned)


def _trained(options: argparse.Namespace, root: Path) -> Run:
    if options.run:
        return Run.open(options.run, options.out)
    return finetune(labelled.config(options), root=root)


def _forget(trained: Run) -> None:
    """What was measured before is measured again."""
    shutil.rmtree(bases_folder(trained), ignore_errors=True)
    (trained.path / FILE).unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__)
    labelled.add_flags(parser, rows=300)
    parser.add_argument("--run", help="a run that was trained on them, in --out")
    parser.add_argument("--max-new-tokens", type=int, default=24)
    parser.add_argument("--questions", type=int, default=160)
    run(measure, parser)


if __name__ == "__main__":
    main()
