"""Answers side by side: conversations, differences, tokens, sets of prompts, ballots."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal

from playground.english import compare as say
from playground.views.texts import duration
from tunelab import Comparison, Run, fold_equal
from tunelab.measure.changes.diff import Piece, word_diff
from tunelab.measure.markup import render

if TYPE_CHECKING:
    from markupsafe import Markup

    from tunelab.measure.changes.tokens import TokenChange, TokenChanges
    from tunelab.measure.votes import Shown, WinRate

View = Literal["plain", "diff", "only"]
STEPS = (0.1, 1.0, 3.0)  # nats: from there on a change is shown as slight, clear, strong
MOST_ROWS = 200  # of a set of prompts, in the page


def answer_html(said: Comparison | None, column: int, view: View = "plain", empty: str = "") -> Markup:
    """A column's conversation, its last answer as `view` says. Differences are from the first column, and are shown
    when every answer is complete."""
    if said is None or column >= len(said.by_column):
        return render("playground", "answer.html", empty=empty, answers=())
    answers = said.by_column[column]
    turns = said.history[column] if said.history else ()
    folded = fold_equal(answers)
    pieces = [[Piece("same", one.text)] for one in folded]
    if view != "plain" and said.done and column:
        first = fold_equal(said.by_column[0])[0].text
        pieces[0] = _differences(first, folded[0].text, view)
    shown = [
        {"pieces": parts, "count": one.count, "seeds": ", ".join(map(str, one.seeds))}
        for one, parts in zip(folded, pieces, strict=True)
    ]
    several = len(answers) > 1
    return render(
        "playground",
        "answer.html",
        label=answers[0].label,
        turns=turns,
        prompt=said.prompt if turns else None,
        say=say,
        answers=shown,
        copied="\n\n".join(one.text for one in folded) if said.done else "",
        several=several,
        done=said.done,
        empty="",
    )


def _differences(first: str, text: str, view: View) -> list[Piece]:
    diff = word_diff(first, text)
    if len(diff.pieces) <= 1 and first == text:
        return [Piece("same", text)] if view == "diff" else [Piece("same", say.SAME_WORDS)]
    if view == "diff":
        return list(diff.pieces)
    return [piece if piece.kind != "same" else Piece("same", " … ") for piece in diff.pieces]


def problem_html(problem: str, parts: Collection[str] = ()) -> Markup:
    """What is wrong with a column, beside it. `parts`: what of its card there is, by which the style sheet shows it
    (Gradio forgets `visible` of what stands in a drawer that has not been opened)."""
    return render("playground", "problem.html", problem=problem, parts=sorted(parts))


def tokens_html(changes: TokenChanges, label: str, run: Run, notes: Sequence[str]) -> Markup:
    """A text whose tokens are shaded by how much more or less the tuned model expected them, with a sentence."""
    tokens = [{"text": _shown(one.text), "title": _title(one), "kind": _kind(one.change)} for one in changes.tokens]
    return render(
        "playground",
        "token_changes.html",
        say=say,
        sentence=_sentence(changes, label, run),
        tokens=tokens,
        rows=[(_shown(t.text), _number(t.base), _number(t.tuned), _number(t.change, True)) for t in changes.tokens],
        notes=[*changes.notes, *notes],
    )


def _sentence(changes: TokenChanges, label: str, run: Run) -> str:
    base, tuned = changes.base, changes.tuned
    change = tuned - base
    given = {"label": label, "base": _number(base), "run": run.name, "tuned": _number(tuned)}
    said = say.LIKELY.format(tokens=f"{changes.scored:,}", **given)
    if abs(change) < STEPS[0]:
        return f"{said} {say.AS_LIKELY}"
    times = {"whole": _times(abs(change)), "each": _times(abs(change) / max(1, changes.scored))}
    return f"{said} {(say.TUNED_LIKELIER if change > 0 else say.BASE_LIKELIER).format(**times)}"


def _times(nats: float) -> str:
    """e to the power of it, for people."""
    if nats > math.log(1e6):
        return f"10^{nats / math.log(10):.0f}"
    return f"{math.exp(nats):,.{2 if nats < 2 else 0}f}"


def _title(token: TokenChange) -> str:
    if token.change is None:
        return say.NO_PROBABILITY
    return say.TOKEN.format(
        base=_number(token.base), tuned=_number(token.tuned), change=_number(token.change, signed=True)
    )


def _kind(change: float | None) -> str:
    if change is None or abs(change) < STEPS[0]:
        return ""
    return f"{'up' if change > 0 else 'down'}{sum(abs(change) >= step for step in STEPS)}"


def _number(value: float | None, signed: bool = False) -> str:
    return "–" if value is None else f"{value:{'+' if signed else ''}.2f}".replace("-", "−")


def _shown(text: str) -> str:
    """A token as it can be seen: a line's end has a sign."""
    return text.replace("\n", "⏎\n")


def set_html(said: Sequence[Comparison], only: bool, mark: bool, empty: str) -> Markup:
    """Answers to a set of prompts as a table; `only`: prompts whose answers differ from the first column's."""
    labels = next(([group[0].label for group in one.by_column] for one in said if one.answers), [])
    differing = [one for one in said if differs(one)]
    shown = [(place, one) for place, one in enumerate(said, 1) if not only or differs(one) or one.error]
    rows = [
        {"number": place, "prompt": one.prompt, "error": one.error, "cells": _cells(one, mark)}
        for place, one in shown[:MOST_ROWS]
    ]
    failed = sum(one.error is not None for one in said)
    parts = [say.SET_DIFFER.format(prompts=f"{len(said):,}", differing=f"{len(differing):,}")] if said else []
    parts += [say.SET_FAILED.format(failed=f"{failed:,}")] if failed else []
    parts += [say.SET_FIRST.format(most=MOST_ROWS)] if len(shown) > MOST_ROWS else []
    summary = "; ".join(parts)
    return render("playground", "prompt_set.html", labels=labels, rows=rows, summary=summary, empty=empty, say=say)


def differs(one: Comparison) -> bool:
    """Whether a column gave other answers than the first one."""
    groups = [[answer.text for answer in group] for group in one.by_column]
    return any(group != groups[0] for group in groups[1:])


def _cells(one: Comparison, mark: bool) -> list[list[dict[str, Any]]]:
    cells: list[list[dict[str, Any]]] = []
    for place, group in enumerate(one.by_column):
        folded = fold_equal(group)
        first = fold_equal(one.by_column[0])[0].text
        parts = [
            {
                "pieces": word_diff(first, f.text).pieces if mark and place and not n else [Piece("same", f.text)],
                "count": f.count,
            }
            for n, f in enumerate(folded)
        ]
        cells.append(parts)
    return cells


def ballot_html(shown: Shown | None, empty: str) -> Markup:
    """A ballot as a voter sees it."""
    answers = list(zip(shown.letters, shown.answers, strict=True)) if shown else []
    return render("playground", "ballot.html", shown=shown, answers=answers, empty=empty, say=say)


def rates_html(rates: Sequence[WinRate]) -> Markup:
    """What the votes say so far."""
    shown = [(100 * r.low, 100 * r.value, 100 * r.high, r) for r in rates]
    return render("playground", "rates.html", rates=shown, say=say)


def landed_html(run: Run | None) -> Markup:
    """What a run has just done, in two sentences with its own numbers; nothing without a run."""
    return render("playground", "landed.html", sentences=_landed(run) if run else ())


def _landed(run: Run) -> tuple[str, ...]:
    progress = run.progress()
    started = progress.started
    if started is None:
        return ()
    seconds = sum(step.seconds for step in progress.steps)
    share = started.trainable_parameters / started.total_parameters
    did = say.LANDED.format(
        run=run.name,
        steps=progress.step,
        duration=duration(seconds),
        rows=_rows_of_a_step(run),
        of=f"{sum(started.train_rows):,}",
        millions=f"{started.trainable_parameters / 1e6:.1f}",
        share=f"{share:.1%}",
    )
    base, tuned = progress.base_loss, progress.heldout_loss
    if base is None or tuned is None:
        return (did,)
    words = say.LANDED_FELL if tuned < base else say.LANDED_ROSE
    rows = f"{sum(started.heldout_rows):,}"
    return did, words.format(rows=rows, base=f"{base:.2f}", tuned=f"{tuned:.2f}")


def _rows_of_a_step(run: Run) -> int:
    training = run.config.stages[-1].training
    return training.batch_size * training.gradient_accumulation_steps
