"""What a card says in sentences: the result, what limits it, what is missing, and how to do it again."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from tunelab.measure.card.facts import Headline, Repeat, StageData, Tone
from tunelab.measure.card.shown import one_line, sentence
from tunelab.run.public import public_yaml, stages_in_words, without_paths
from tunelab.run.report_words import limits_in_words, titled

if TYPE_CHECKING:
    from tunelab.measure.card.facts import Changed
    from tunelab.run.progress import Progress
    from tunelab.run.reports import Report
    from tunelab.run.run import Run

FLAGS = ("system", "examples", "metric", "probe", "canaries", "stage")  # whose values a report keeps
TONES: dict[str, Tone] = {"better": "better", "worse": "worse", "different": "open", "not enough evidence": "open"}
STANDINGS = {
    "queued": "Not trained yet",
    "running": "In training",
    "finished": "Not measured yet",
    "stopped": "Stopped before its end",
    "paused": "Paused before its end",
    "failed": "Failed",
    "lost": "Broken off",
}


def headline_of(run: Run, progress: Progress, report: Report | None) -> Headline:
    """The verdict; where nothing was measured, where the run stands."""
    if report is None:
        words = STANDINGS.get(progress.status, progress.status)
        message = one_line(without_paths(progress.message, run))
        return Headline(words=words, sentence=sentence(f"The run {_is(progress.status)}: {message}"), tone="none")
    return verdict_of(report)


def verdict_of(report: Report) -> Headline:
    """What was measured, in large words and a sentence."""
    said = report.sentence or _older_sentence(report)
    words, _colon, rest = said.partition(": ")
    tone = TONES[report.verdict]
    if words != report.verdict and tone == "better":  # something that needs no tuning does as well
        tone = "open"
    return Headline(words=f"{words[0].upper()}{words[1:]}", sentence=sentence(rest), tone=tone)


def _older_sentence(report: Report) -> str:
    """Of a report that has no verdict in words."""
    figure, digits = (report.main, 1) if report.main else (report.heldout_loss, 3)
    name = titled(report.main_metric, figure) if report.main_metric else "held-out loss, nats per token"
    change = figure.change
    return (
        f"{report.verdict}: {change.value:+.{digits}f} {name}, 95 % interval {change.low:.{digits}f} to "
        f"{change.high:.{digits}f}, {report.rows:,} rows"
    )


def _is(status: str) -> str:
    return {"finished": "has finished", "failed": "has failed"}.get(status, f"is {status}")


def notes_of(run: Run, progress: Progress) -> tuple[str, ...]:
    """The notes of the run's events, in order: what was read, left out and decided, and what was noticed."""
    said = [*(progress.started.notes if progress.started else ()), *(notice.message for notice in progress.notices)]
    return tuple(sentence(one_line(without_paths(note, run))) for note in said)


def limits_of(run: Run, progress: Progress, report: Report | None) -> tuple[str, ...]:
    """What keeps the figures from saying more, a sentence each."""
    found = []
    if progress.status != "finished":
        found.append(f"The run is {progress.status}: this is not the result that was asked for.")
    found += [sentence(one_line(line)) for line in stages_in_words(run)[1:]]
    if report is None:
        return (*found, "Nothing but the held-out loss was measured: whether answers are better is not known.")
    what = f"rows of {one_line(report.data)}" if report.data else "held-out rows"
    found.append(f"Measured on {report.rows:,} {what} and {report.probe_rows:,} general instructions.")
    found += [one_line(without_paths(line, run)) for line in limits_in_words(report)]
    if report.data is None and report.answers_file:
        found.append(
            "Held-out rows come from the same source as the training rows: nothing is said of questions that people "
            "ask in another way."
        )
    found.append(
        "One run was measured: with another seed the figures are others. `tunelab sweep` trains several and counts the "
        "luck between them."
    )
    if report.ability is None:
        found.append("Of general ability only the loss on instructions was measured, and no question was asked.")
    found += [] if report.memorisation else ["Whether training rows can be read out of the model was not looked at."]
    found += [] if report.safety else ["Whether it still declines harmful requests was not looked at."]
    return tuple(found)


def missing_of(run: Run, report: Report | None, changed: Changed | None) -> dict[str, str]:
    """Of each part that is not there, what to run to have it."""
    evaluate = f"tunelab evaluate {run.id}"
    if not run.has_adapter:
        nothing = "There is no result to measure yet."
        return dict.fromkeys(("result", "baselines", "changed", "forgetting"), nothing)
    found = {}
    if report is None:
        found["result"] = f"The run has not been measured. `{evaluate}` does it."
        found["forgetting"] = f"Forgetting was not measured. `{evaluate}` does it."
    if report is None or not report.baselines:
        found["baselines"] = f"Nothing else has answered these rows. `{evaluate}` asks the simplest guesses as well."
    if report is not None and report.main_metric is None:
        found["baselines"] = found["changed"] = "The run learned plain text: there are no answers to compare."
    elif report is None:
        found["changed"] = f"The held-out rows have not been answered. `{evaluate}` does it."
    elif changed is None:
        found["changed"] = f"The answers are not kept row by row. `{evaluate}` keeps them."
    return found


def repeat_of(run: Run, stages: tuple[StageData, ...], report: Report | None) -> Repeat:
    """The configuration and the commands, and what has to be the same."""
    config = run.pinned
    if run.imported_from:
        unknown = "The adapter was made elsewhere: how it was trained is not known here."
        return Repeat(commands=(), configuration=public_yaml(config), notes=(unknown,))
    commands = ["tunelab train run.yaml"]
    notes = ["Files stand there without their folders: put yours in their place."]
    if report:
        commands.append(_measured_by(report))
    if any(stage.data.rows is not None for stage in config.stages):
        notes.append("Rows that were in memory are not in it: name the file they came from.")
    for stage in stages:
        if stage.sha256:
            notes.append(f"The rows of {stage.name} are the same where their sha256 is {stage.sha256}.")
    if (started := run.progress().started) is not None:
        notes.append(f"The base is the same where the sha256 of its weights is {started.base_sha256}.")
    notes.append("On another processor, or with other versions of PyTorch, losses differ in their last digits.")
    return Repeat(commands=tuple(commands), configuration=public_yaml(config), notes=tuple(notes))


def _measured_by(report: Report) -> str:
    """The command that measures as the report was measured, as far as it says."""
    flags = [
        f"--rows {report.rows}",
        f"--max-new-tokens {report.max_new_tokens}" if report.max_new_tokens else "",
        "--by likelihood" if report.by == "likelihood" else "",
        f"--data {shlex.quote(one_line(report.data))}" if report.data else "",
        f"--questions {report.ability.questions if report.ability else 0}",
        f"--instructions {report.probe_rows}",
        "--memorisation" if report.memorisation else "",
        "--safety" if report.safety else "",
        *(f"--{name}={shlex.quote(one_line(report.asked[name]))}" for name in FLAGS if name in report.asked),
        " ".join(["--against", *map(shlex.quote, one_line(report.asked["against"]).split())])
        if report.asked.get("against")
        else "",
    ]
    return " ".join(["tunelab evaluate latest", *filter(None, flags)])
