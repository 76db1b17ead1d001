"""The command line: `tunelab train | runs | label | delete | restore | diff | stop | resume | rollback | compare |
evaluate | sweep | report | paired | ladder | export | import | data | models | doctor`.

    tunelab train --data tickets.csv --name tickets
    tunelab compare tickets --prompt "My card was declined"
    tunelab export tickets --to gguf --out tickets.gguf

Exit codes: 0 done, 2 something you can put right (the message says what), 1 a bug, 130 stopped with Ctrl-C (the adapter
is kept).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelab import data_cli, evaluate_cli, models_cli, report_cli, runs_cli, sweep_cli
from tunelab.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError, explain, shortened
from tunelab.flags import (
    MODEL_FLAGS,
    ROW_FLAGS,
    data_fields,
    data_flags,
    given,
    share_or_file,
    spec_flags,
    technique_flags,
)
from tunelab.machine import libraries, processes
from tunelab.terminal import add_command, aligned, follow_climb, say, say_what_is_left

if TYPE_CHECKING:
    from tunelab.config import Changes, RunConfig
    from tunelab.run.events import Evaluated, TrainingEvent
    from tunelab.run.run import Run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    libraries.prepare()
    with ExitStack() as stack:
        if not processes.is_first():  # of several that train together, one speaks
            quiet = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(quiet))
            stack.enter_context(redirect_stderr(quiet))
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    """The command that was asked for; its exit code."""
    try:
        return options.command(options) or 0
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output ended, e.g. `| head`
        sys.stderr.close()
        return 0
    except Exception as error:
        known = explain(error)
        if known is None:
            raise
        print(f"tunelab: {known}", file=sys.stderr)
        return EXIT_USER_ERROR


def build_parser() -> argparse.ArgumentParser:
    """The parser, its flags made from the fields of the specs."""
    from tunelab.config import RunConfig
    from tunelab.measure.ladder import RUNGS, LadderConfig
    from tunelab.spec import DataSpec, ModelSpec, Stage, TrainConfig
    from tunelab.techniques import TECHNIQUES

    parser = argparse.ArgumentParser(prog="tunelab", description=(__doc__ or "").split("\n\n")[0])
    parser.set_defaults(command=lambda _options: parser.print_help())
    commands = parser.add_subparsers(title="commands")

    train = add_command(commands, "train", _train, "train an adapter from a config file or from flags")
    train.add_argument(
        "config", nargs="?", metavar="RUN.YAML", help="a RunConfig as YAML or JSON; flags override what it says"
    )
    train.add_argument("--again", metavar="RUN", help="a run whose settings are taken; flags override them")
    data_flags(train)
    train.add_argument("--technique", choices=sorted(TECHNIQUES), help="how to adapt the model (default: lora)")
    described = ModelSpec.model_fields["repo_id"].description
    train.add_argument("--model", dest="repo_id", help=f"{described} (default: starter)")
    train.add_argument("--name", help="a name to recognise the run by")
    spec_flags(train, DataSpec, (*ROW_FLAGS, "template", "system", "limit"))
    spec_flags(train, ModelSpec, MODEL_FLAGS)
    train.add_argument("--start-from", metavar="RUN", help=RunConfig.model_fields["start_from"].description)
    train.add_argument("--learn", choices=("instructions", "text"), help=Stage.model_fields["learn"].description)
    train.add_argument("--replay", metavar="FILE", help=Stage.model_fields["replay"].description)
    technique_flags(train)
    spec_flags(train, TrainConfig, tuple(TrainConfig.model_fields))

    runs_cli.add_commands(commands)
    stop = add_command(commands, "stop", _stop, "ask a run to stop after the step it is in; its adapter is kept")
    stop.add_argument("run", help="id or name of the run, or 'latest'")
    resume = add_command(commands, "resume", _resume, "go on with a stopped, failed or lost run")
    resume.add_argument("run", help="id or name of the run, or 'latest'")

    compare = add_command(commands, "compare", _compare, "answers of the base and of runs, side by side")
    compare.add_argument("run", nargs="+", help="id or name of runs, or 'latest'")
    asked = compare.add_mutually_exclusive_group(required=True)
    asked.add_argument("--prompt", help="one prompt")
    asked.add_argument("--prompts", metavar="FILE", help="a text file with one prompt per line, or a data file")
    compare.add_argument("--system", help="a system prompt")
    compare.add_argument(
        "--strength", type=float, default=1.0, help="how much the adapters count: 0 is the base, 1 the run, up to 1.5"
    )
    compare.add_argument("--max-new-tokens", type=int, default=128, help="longest answer in tokens")
    compare.add_argument("--temperature", type=float, default=0.0, help="0: the most likely token; above: sampled")
    compare.add_argument("--seed", type=int, default=0, help="seed of the sampling")
    compare.add_argument("--json", action="store_true", help="one JSON object per prompt and line")

    rollback = add_command(commands, "rollback", _rollback, "go back to what a run was at the end of a stage")
    rollback.add_argument("run", help="id or name of the run, or 'latest'")
    rollback.add_argument("--stage", type=int, required=True, help="the stage, counted from 1")

    evaluate_cli.add_command(commands)
    sweep_cli.add_command(commands)
    report_cli.add_command(commands)

    paired = add_command(commands, "paired", _paired, "whether one result file is better than another, row by row")
    paired.add_argument("base", metavar="A", help="results as CSV, JSON, JSONL, or a sample log of lm-eval")
    paired.add_argument(
        "tuned", metavar="B", nargs="+", help="other results on the same rows; more: further runs of it"
    )
    paired.add_argument("--id", metavar="COLUMN", help="by which rows are joined, or 'position' (default: found)")
    paired.add_argument("--score", nargs="+", default=(), metavar="COLUMN", help="columns to judge (default: found)")
    paired.add_argument(
        "--lower-is-better", nargs="+", default=(), metavar="COLUMN", help="columns in which less is better"
    )
    paired.add_argument("--json", action="store_true", help="the verdicts as JSON")

    ladder = add_command(commands, "ladder", _ladder, "every technique on the same rows and budget, in one table")
    data_flags(ladder)
    ladder.add_argument(
        "--model", dest="repo_id", default="starter", help=ModelSpec.model_fields["repo_id"].description
    )
    ladder.add_argument("--techniques", default="all", help=f"'all', or a list with commas of {', '.join(RUNGS)}")
    ladder.add_argument("--budget-steps", type=int, default=60, help=LadderConfig.model_fields["steps"].description)
    ladder.add_argument("--out", metavar="DIR", help="where table and page go; the same DIR goes on where it was")
    ladder.add_argument("--json", action="store_true", help="the table as JSON at the end")
    spec_flags(ladder, DataSpec, (*ROW_FLAGS, "template", "system", "limit"))
    spec_flags(ladder, ModelSpec, ("max_length", "dtype", "device"))
    spec_flags(ladder, LadderConfig, ("batch_size", "seed", "rows", "instructions", "max_new_tokens"))

    export = add_command(commands, "export", _export, "take a run's result elsewhere")
    export.add_argument("run", help="id or name of the run, or 'latest'")
    export.add_argument(
        "--to",
        choices=("adapter", "merged", "gguf", "ollama", "notebook"),
        required=True,
        help="adapter: a zip that PEFT loads; merged: a model of its own; gguf: one file for llama.cpp; ollama: "
        "that file in a folder with a Modelfile; notebook: cells that train the run again",
    )
    export.add_argument("--out", metavar="PATH", required=True, help="new zip, folder or file")
    export.add_argument("--dtype", choices=("bfloat16", "float32"), help="of a merged model (default: bfloat16)")
    export.add_argument("--gguf-type", choices=("f16", "q8_0", "f32"), help="of gguf and ollama (default: f16)")

    bring = add_command(commands, "import", _import, "make a run of an adapter made elsewhere with PEFT")
    bring.add_argument("path", help="the adapter's folder, or a zip of it")
    bring.add_argument("--model", dest="repo_id", required=True, help=ModelSpec.model_fields["repo_id"].description)
    bring.add_argument("--name", help="a name to recognise the run by (default: the file's)")
    spec_flags(bring, ModelSpec, ("revision", "quantization", "max_length", "dtype", "device"))

    data_cli.add_commands(commands)
    models_cli.add_commands(commands)
    doctor = add_command(commands, "doctor", _doctor, "what this machine can do, and what is missing")
    doctor.add_argument("--json", action="store_true", help="as JSON")
    return parser


def _config(options: argparse.Namespace) -> tuple[RunConfig, list[str]]:
    """What the file and the flags describe, and a line for each setting of the file that a flag overrides."""
    from tunelab.config import RunConfig, changed, differences

    changes = _changes(options)
    if options.config or options.again:
        config = _given_config(options)
        if len(config.stages) > 1:
            _check_flags_of_one_stage(options, config)
        overridden = changed(config, changes)
        lines = [f"{line} (flag)" for line in differences(config, overridden)]
        return overridden, lines + (_settings_that_stay(config, changes) if options.data else [])
    _check_data_is_given(options)
    technique = {"kind": "lora", **changes.technique}
    # NF4 unless told otherwise, except where it can't be trained
    model = {"repo_id": "starter", "quantization": "none" if technique["kind"] == "full" else "nf4", **changes.model}
    stage = {**changes.stage, "data": changes.data, "training": changes.training}
    return RunConfig.model_validate({**changes.run, "model": model, "technique": technique, "stages": [stage]}), []


def _given_config(options: argparse.Namespace) -> RunConfig:
    """What the file says, or what a run was trained by."""
    from tunelab.config import RunConfig

    if not options.again:
        return RunConfig.from_file(options.config)
    if options.config:
        raise UserError(f"--again {options.again}: {options.config} says what to train as well. Give one of them.")
    run = _opened(options.again, options)
    if run.imported_from:
        raise UserError(
            f"--again {options.again}: its adapter was made elsewhere, how is not known. Give flags instead."
        )
    return run.pinned


def _changes(options: argparse.Namespace) -> Changes:
    """The settings that flags give."""
    from tunelab.config import Changes

    before = _opened(options.start_from, options).id if options.start_from else None
    replay = {"source": options.replay} if options.replay else None
    named = {"name": options.name, "start_from": before}, {"learn": options.learn, "replay": replay}
    run, stage = ({name: value for name, value in one.items() if value is not None} for one in named)
    model, technique = given(options, "ModelSpec"), given(options, "technique")
    if options.repo_id is not None:
        model["repo_id"] = options.repo_id
    if options.technique is not None:
        technique["kind"] = options.technique
    return Changes(run, model, technique, stage, data_fields(options), given(options, "TrainConfig"))


def _settings_that_stay(config: RunConfig, changes: Changes) -> list[str]:
    """What the file says about its rows, and goes on to say about those that a flag names instead."""
    data = config.stages[0].data
    about = ("columns", "labels", "header", "template", "system", "fixes", "heldout", "heldout_rows", "limit")
    stay = [name for name in about if name in data.model_fields_set - changes.data.keys()]
    stay = [name for name in stay if getattr(data, name) not in (None, ())]
    return [f"as in the file: {', '.join(stay)}"] if stay else []


def _check_data_is_given(options: argparse.Namespace) -> None:
    if not options.data:
        raise UserError("What to learn from is missing. Give --data FILE (or --data python-docs), or a RunConfig file.")


def _check_flags_of_one_stage(options: argparse.Namespace, config: RunConfig) -> None:
    """Refuse flags that say something about one set of rows where there are several."""
    heldout_file = options.heldout and isinstance(share_or_file(options.heldout), str)
    of_one = {"--data": options.data, "--columns": options.columns, "--labels": options.labels,
              "--heldout FILE": heldout_file, "--learn": options.learn, "--fix": options.fix,
              "--template": given(options, "DataSpec").get("template")}  # fmt: skip
    if flags := [flag for flag, value in of_one.items() if value]:
        named = ", ".join(stage.name or stage.data.title for stage in config.stages)
        shown = named if len(named) < 100 else f"{named[:100]} …"
        where = options.again or Path(options.config).name
        raise UserError(
            f"{', '.join(flags)}: {where} has {len(config.stages)} stages ({shown}), each with rows of its "
            "own. Write it into the file, at its stage; flags of the training go to every stage."
        )


def _opened(name: str, options: argparse.Namespace) -> Run:
    from tunelab.run.run import Run

    return Run.open(name, options.root)


def _train(options: argparse.Namespace) -> int:
    from tunelab.chain import create_run

    config, overridden = _config(options)
    run = create_run(config, options.root)
    for line in overridden:
        print(line)
    print(f"run {run.id}: {config.method} on {config.model.repo_id}, {config.stages[0].data.title}")
    return _follow(run)


def _resume(options: argparse.Namespace) -> int:
    from tunelab.run.run import RESUMABLE

    run = _opened(options.run, options)
    processes.join(run.config.model.device)  # reading it, one of another version says so
    status = processes.agreed(lambda: run.status)
    if status not in RESUMABLE:
        raise UserError(
            f"Run {run.id} can't be resumed: it is {status}. Allowed: stopped, paused, failed or lost runs."
        )
    if processes.is_first():
        run.clear_requests()  # also that of one that was taken out of the queue a moment ago
    print(f"run {run.id}: going on")
    return _follow(run)


def _follow(run: Run) -> int:
    """Train in this process, showing events as they come; the exit code."""
    from tunelab.chain import train_run
    from tunelab.run.events import Stopped

    last = None
    for event in _shown(train_run(run)):
        last = event
    if isinstance(last, Stopped):
        print(f"Stopped at step {last.step}; the adapter is kept. Go on with: tunelab resume {run.id}")
        return EXIT_INTERRUPTED
    print(f"Run {run.id} {run.progress().message}.")
    print(f"Adapter: {run.adapter_path}\nCompare: tunelab compare {run.id} --prompt '…'")
    return 0


def _shown(events: Iterator[TrainingEvent]) -> Iterator[TrainingEvent]:
    """The events, shown on the way: a progress bar on a terminal, plain lines in a pipe."""
    from tqdm import tqdm

    from tunelab.run.events import Preparing, Started, StepDone

    bar: Any = None
    terminal = sys.stdout.isatty()
    try:
        for event in events:
            if isinstance(event, Started):
                bar = tqdm(total=event.steps_total, unit="step", disable=not terminal, file=sys.stdout)
            if isinstance(event, StepDone) and bar is not None:
                bar.update(event.step - bar.n)
                bar.set_postfix_str(f"loss {event.loss:.3f}, {event.tokens / event.seconds:.0f} tokens/s")
            line = describe(event)
            if line and not (terminal and isinstance(event, StepDone)):
                # a step's line would tear the bar, all others go above it
                tqdm.write(line, file=sys.stdout) if terminal and bar is not None else print(line, flush=True)
            elif terminal and bar is None and isinstance(event, Preparing):
                print(event.message, flush=True)
            yield event
    finally:
        if bar is not None:
            bar.close()


def describe(event: TrainingEvent) -> str | None:
    """An event as a line for people; None for those that need none."""
    from tunelab.run import events as e

    if isinstance(event, (e.Preparing, e.Noticed)):
        return event.message
    if isinstance(event, e.Started):
        rows = f"{event.train_rows[0]:,} rows to train on, {event.heldout_rows[0]:,} held out"
        share = event.trainable_parameters / event.total_parameters
        facts = f"{rows}; {event.trainable_parameters:,} trained parameters ({share:.1%}); {event.dtype}, "
        return "\n".join([facts + f"{event.threads} threads, {event.device}", *event.notes])
    if isinstance(event, e.StepDone):
        return f"step {event.step}: loss {event.loss:.4f}, {event.tokens / event.seconds:.0f} tokens/s"
    if isinstance(event, e.Evaluated):
        base = f" (base {event.base_loss:.4f})" if event.base_loss is not None else ""
        return f"step {event.step}: held-out loss {event.heldout_loss:.4f}{base}{_beside(event)}"
    if isinstance(event, e.Sampled):
        who = "base" if event.of_base else f"step {event.step}"
        return f"{who}, {shortened(event.prompt, 60)} → {shortened(event.answer, 120)}"
    if isinstance(event, e.RolledBack):
        return f"rolled back to the end of stage {event.stage + 1}"
    if isinstance(event, e.StageDone):
        return event.kept
    if isinstance(event, e.Resumed):
        return f"going on from step {event.step}"
    return None


def _beside(event: Evaluated) -> str:
    """What was measured beside the held-out loss, after a comma."""
    said = ""
    if event.metric_value is not None:
        base = f" (base {event.base_metric:.1f})" if event.base_metric is not None else ""
        said += f", {event.metric} {event.metric_value:.1f}{base}"
    if event.general_loss is not None:
        base = f" (base {event.base_general_loss:.4f})" if event.base_general_loss is not None else ""
        said += f", general loss {event.general_loss:.4f}{base}"
    return said


def _stop(options: argparse.Namespace) -> int:
    run = _opened(options.run, options)
    _ = run.config  # one of another version says so
    status = run.status
    if status not in ("running", "queued"):
        raise UserError(f"Run {run.id} is not training: it is {status}.")
    run.request_stop()
    while run.is_alive:
        time.sleep(0.2)
    print(f"Run {run.id}: {run.progress().message}")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from tunelab.answer.comparison import Comparer
    from tunelab.run.run import Run

    runs = [Run.open_to_ask(name, options.root) for name in options.run]
    prompts = [options.prompt] if options.prompt is not None else _prompts(Path(options.prompts))
    with Comparer(options.root) as comparer:
        for prompt in prompts:
            *_, result = comparer.stream(
                runs,
                prompt,
                system=options.system,
                strength=options.strength,
                max_new_tokens=options.max_new_tokens,
                temperature=options.temperature,
                seed=options.seed,
            )
            if options.json:
                print(json.dumps(asdict(result), ensure_ascii=False), flush=True)
                continue
            print(f"\n> {prompt}")
            for answer in result.answers:
                print(f"\n[{answer.label}] {answer.provenance.text}\n{answer.text}")
            if result.note:
                print(f"\n{result.note}")
    return 0


def _prompts(path: Path) -> list[str]:
    from tunelab.data import read_data
    from tunelab.data.reading import SUFFIXES, TEXTS
    from tunelab.spec import DataSpec

    if path.suffix.lower() in SUFFIXES and path.suffix.lower() not in TEXTS:
        split = read_data(DataSpec(source=str(path), heldout=1))
        return [e.prompt for e in sorted([*split.train, *split.heldout], key=lambda e: e.row)]
    if not path.is_file():
        raise UserError(f"--prompts {path}: there is no such file. Give a text file with one prompt per line.")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"--prompts {path}: is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from None
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise UserError(f"--prompts {path}: the file is empty. Write one prompt per line.")
    return prompts


def _rollback(options: argparse.Namespace) -> int:
    run = _opened(options.run, options)
    run.roll_back(options.stage - 1)
    print(f"Run {run.id}: {run.progress().message}")
    return 0


def _paired(options: argparse.Namespace) -> int:
    from tunelab.measure.statistics.paired import paired

    found = paired(
        options.base,
        *options.tuned,
        id_column=options.id,
        scores=options.score,
        lower_is_better=options.lower_is_better,
    )
    print(json.dumps(found.as_json(), ensure_ascii=False, indent=1) if options.json else found.text())
    return 0


def _ladder(options: argparse.Namespace) -> int:
    from tunelab.measure.ladder import PAGE_FILE, RESULTS_FILE, RUNGS, Ladder, LadderConfig
    from tunelab.measure.pages import ladder_columns, ladder_table

    _check_data_is_given(options)
    names = tuple(RUNGS) if options.techniques == "all" else tuple(n.strip() for n in options.techniques.split(","))
    config = LadderConfig.model_validate(
        {
            "model": {**given(options, "ModelSpec"), "repo_id": options.repo_id},
            "data": data_fields(options),
            "techniques": names,
            "steps": options.budget_steps,
            **given(options, "LadderConfig"),
        }
    )
    ladder = Ladder.create(config, Path(options.out) if options.out else None, options.root)
    stopped = follow_climb(ladder, say if options.json else print)
    if options.json:
        print((ladder.path / RESULTS_FILE).read_text(encoding="utf-8"))
    else:
        print("\n" + aligned([ladder_columns(ladder), *ladder_table(ladder)]))
        print(f"\nTable and chart: {ladder.path / PAGE_FILE}")
    say_what_is_left(ladder)
    return EXIT_INTERRUPTED if stopped else 0


def _export(options: argparse.Namespace) -> int:
    from tunelab.as_code import export_notebook
    from tunelab.export import export_adapter, export_gguf, export_merged, export_ollama

    goes_with = (("--dtype", options.dtype, ("merged",)), ("--gguf-type", options.gguf_type, ("gguf", "ollama")))
    for flag, value, targets in goes_with:
        if value and options.to not in targets:
            raise UserError(f"{flag} goes with --to {' or '.join(targets)}, not with --to {options.to}. Leave it out.")
    run = _opened(options.run, options)
    if options.to == "adapter":
        made = export_adapter(run, options.out)
    elif options.to == "merged":
        made = export_merged(run, options.out, options.dtype or "bfloat16", say)
    elif options.to == "notebook":
        made = export_notebook(run, options.out)
    elif options.to == "ollama":
        made = export_ollama(run, options.out, options.gguf_type or "f16", say)
    else:
        made = export_gguf(run, options.out, options.gguf_type or "f16", say)
    print(f"Exported: {made.path}", *made.notes, sep="\n")
    return 0


def _import(options: argparse.Namespace) -> int:
    from tunelab.export import import_adapter
    from tunelab.spec import ModelSpec

    model = ModelSpec.model_validate({**given(options, "ModelSpec"), "repo_id": options.repo_id})
    run = import_adapter(options.path, model, options.root, options.name)
    started = run.progress().started
    print(f"run {run.id}: {run.config.method} on {model.repo_id}", *(started.notes if started else ()), sep="\n")
    print(f"Compare: tunelab compare {run.id} --prompt '…'")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from tunelab.doctor import examine, render

    report = examine(options.root)
    print(json.dumps(report, indent=1) if options.json else render(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
