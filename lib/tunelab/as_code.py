"""A run as code: what trains exactly this run again, in a notebook, in Python or on the command line.

    as_python(config)  ──> `RunConfig(…)` as a person would write it
    as_notebook(run)   ──> cells that train it, draw its curves, ask and measure it
    as_command(run)    ──> a line for the shell, where flags can say it all

Everything that changes a loss stands in it: settings, rows, seeds. What a machine chooses by measuring (precision,
attention, threads) it chooses again.
"""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tunelab.errors import UserError
from tunelab.export.targets import Exported, new_file
from tunelab.flags import MODEL_FLAGS, ROW_FLAGS, flag_value
from tunelab.run.run import runs_root

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tunelab.config import RunConfig
    from tunelab.run.run import Run
    from tunelab.spec import Stage

WIDTH = 100  # characters of a line of code
ROWS_IN_CODE = 100_000  # characters of rows in memory that a notebook holds; of more it reads them from the run
NAMES = (
    *("DataSpec", "ModelSpec", "Run", "RunConfig", "Stage", "TrainConfig"),
    *("compare", "evaluate", "heldout_examples", "train_run"),
)


def as_python(config: RunConfig) -> str:
    """The configuration as an expression of Python; settings left at their defaults are not in it."""
    return _code(config, 0, {})


def as_command(run: Run) -> str:
    """What a shell runs to train it again: flags where they can say every setting, else a file that the command writes
    first. With many rows in memory it names the run, which has them.

    Raises:
        UserError: its adapter was made elsewhere.
    """
    _check_trained_here(run)
    config, runs = run.pinned, _runs_flag(run)
    flags = _flags(config)
    if flags is not None:
        return shlex.join(["tunelab", "train", *flags, *runs])
    text = "" if _large_rows(config) else config.to_yaml()  # which takes a second for 5,000 rows
    if text and len(text) <= ROWS_IN_CODE:
        end = "END_OF_RUN"
        while end in text:
            end += "_"
        return f"cat > run.yaml <<'{end}'\n{text}{end}\n{shlex.join(['tunelab', 'train', 'run.yaml', *runs])}"
    return shlex.join(["tunelab", "train", "--again", run.id, *runs])


def as_notebook(run: Run) -> str:
    """The text of an .ipynb file: it trains the run again, draws its curves, asks base and tuned, and measures them.

    Raises:
        UserError: its adapter was made elsewhere.
    """
    _check_trained_here(run)
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    cells = [
        (new_code_cell if kind == "code" else new_markdown_cell)(text, id=f"cell-{place}")
        for place, (kind, text) in enumerate(_cells(run))
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.writes(new_notebook(cells=cells, metadata={"kernelspec": kernel}))


def export_notebook(run: Run, path: str | Path) -> Exported:
    """The notebook as a new .ipynb file.

    Raises:
        UserError: the file is there, or its name ends in something else.
    """
    target = Path(path)
    with new_file(target, ".ipynb") as temporary:
        temporary.write_text(as_notebook(run), encoding="utf-8")
    return Exported(target)


def _check_trained_here(run: Run) -> None:
    if run.imported_from:
        raise UserError(
            f"Run {run.name} was made elsewhere, so how it was trained is not known, and no code trains it again. "
            "Describe a new run, or start one from it."
        )


def _cells(run: Run) -> Iterator[tuple[str, str]]:
    """Kind and text of each cell."""
    config, elsewhere = run.pinned, bool(_runs_flag(run))
    root = ", root" if elsewhere else ""
    large = _large_rows(config)
    names = sorted({*NAMES, type(config.technique).__name__})
    yield (
        "markdown",
        (
            f"# {config.name or config.method}\n\n{config.method} on `{config.model.repo_id}`. These cells train run "
            f"`{run.id}` again: the same settings, rows and seeds give the same losses on the same machine."
        ),
    )
    lines = [
        "from tunelab.machine.libraries import prepare",
        "prepare()  # threads and warnings: has to come before torch",
        "from IPython.display import HTML, display",
        f"from tunelab import {', '.join(names)}",
        "from tunelab.measure.charts import training_charts",
    ]
    if elsewhere:
        lines += ["", f"root = {_code(str(run.root), 0, {})}  # where its runs live"]
    yield "code", "\n".join(lines)
    stored = f"stored = Run.open({_code(run.id, 0, {})}{root}).config  # has the rows that were in memory\n\n"
    yield "code", f"{stored if large else ''}config = {_code(config, 0, large)}"
    yield (
        "code",
        (
            f"run = Run.create(config{root})\n"
            'chart = display(HTML(""), display_id=True)\n'
            "for event in train_run(run):\n"
            '    if event.event in ("Evaluated", "Finished"):\n'
            "        chart.update(HTML(training_charts(run.progress(), config)))\n"
            "print(run.status, run.path)"
        ),
    )
    if config.stages[-1].learn == "text":
        yield "code", 'compare(run, "A prompt of yours")'
        return
    yield (
        "code",
        (
            "(asked,) = heldout_examples(run, 1)\n"
            'print("question: ", asked.prompt)\n'
            'print("reference:", asked.answer)\n'
            "for answer in compare(run, asked.prompt).answers:\n"
            '    print(f"\\n{answer.label}:\\n{answer.text}")'
        ),
    )
    yield "code", "report = evaluate(run)\nprint(report.sentence)"


def _runs_flag(run: Run) -> list[str]:
    """Where the run lives, if that is not where runs live by themselves."""
    return [] if run.root == runs_root(None) else ["--runs", str(run.root)]


def _large_rows(config: RunConfig) -> dict[int, str]:
    """Of rows in memory that are too many for a cell, by their identity, where a notebook finds them."""
    found = {}
    for number, stage in enumerate(config.stages):
        for owner, data in (("data", stage.data), ("replay", stage.replay)):
            for name in ("rows", "heldout_rows"):
                rows = getattr(data, name, None)
                if rows and len(json.dumps(rows, ensure_ascii=False)) > ROWS_IN_CODE:
                    found[id(rows)] = f"stored.stages[{number}].{owner}.{name}"
    return found


def _code(value: Any, indent: int, named: Mapping[int, str]) -> str:
    """An expression that makes `value`, on one line where it fits; `named`: of values that stand elsewhere, theirs."""
    if id(value) in named:
        return named[id(value)]
    if isinstance(value, BaseModel):
        parts = [(f"{name}=", getattr(value, name)) for name in _settings(value)]
        return _laid_out(f"{type(value).__name__}(", parts, ")", indent, named)
    if isinstance(value, dict):
        return _laid_out("{", [(f"{_code(key, 0, named)}: ", item) for key, item in value.items()], "}", indent, named)
    if isinstance(value, (list, tuple)):
        return _laid_out("[", [("", item) for item in value], "]", indent, named)
    if isinstance(value, str):
        shown = repr(value)
        return f'"{shown[1:-1]}"' if shown[0] == "'" and '"' not in value else shown
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)


def _laid_out(opening: str, parts: list[tuple[str, Any]], closing: str, indent: int, named: Mapping[int, str]) -> str:
    codes = [f"{name}{_code(value, indent + 4, named)}" for name, value in parts]
    line = f"{opening}{', '.join(codes)}{closing}"
    if len(line) + indent <= WIDTH and "\n" not in line:
        return line
    inner = "".join(f"{' ' * (indent + 4)}{code},\n" for code in codes)
    return f"{opening}\n{inner}{' ' * indent}{closing}"


def _settings(spec: BaseModel) -> list[str]:
    """The fields that are not at their defaults."""
    fields = type(spec).model_fields
    return [
        n for n, field in fields.items() if n != "kind" and (field.is_required() or getattr(spec, n) != field.default)
    ]


def _flags(config: RunConfig) -> list[str] | None:
    """The configuration as flags of `tunelab train`; None where they can't say it."""
    (stage, *more) = config.stages
    plain = set(_settings(config.model)) <= {"repo_id", *MODEL_FLAGS} and stage.name is None
    if more or not plain or not _data_fits(stage):
        return None
    data = stage.data
    named = [("--data", data.source), ("--model", config.model.repo_id), ("--technique", config.technique.kind)]
    named += [("--name", config.name), ("--start-from", config.start_from)]
    named += [("--heldout", None if data.heldout == "auto" else str(data.heldout))]
    named += [("--learn", None if stage.learn == "instructions" else stage.learn)]
    named += [("--replay", stage.replay.source if stage.replay else None)]
    words = [word for flag, value in named if value is not None for word in (flag, str(value))]
    words += ["--quantization", config.model.quantization]  # flags have another default than the spec
    for flag, several in (
        ("--columns", _pairs(data.columns)),
        ("--labels", _pairs(data.labels)),
        ("--fix", data.fixes),
    ):
        words += [flag, *several] if several else []
    for spec, elsewhere in (
        (data, ("source", "heldout", "columns", "labels", "fixes")),
        (config.model, ("repo_id", "quantization")),
        (config.technique, ()),
        (stage.training, ()),
    ):
        values = spec.model_dump(mode="json")
        for name in _settings(spec):
            if name in elsewhere:
                continue
            text = flag_value(name, values[name])
            if text is None:
                return None
            words += [f"--{name.replace('_', '-')}", text]
    return words


def _data_fits(stage: Stage) -> bool:
    """Whether flags can name the rows."""
    data, replay = stage.data, stage.replay
    told = {"source", "heldout", "columns", "labels", "fixes", *ROW_FLAGS, "template", "system", "limit"}
    return (
        data.source is not None
        and set(_settings(data)) <= told
        and not any("=" in key for pairs in (data.columns, data.labels) for key in pairs or {})
        and (replay is None or (replay.source is not None and set(_settings(replay)) <= {"source"}))
    )


def _pairs(named: dict[str, str] | None) -> list[str]:
    return [f"{key}={value}" for key, value in (named or {}).items()]
