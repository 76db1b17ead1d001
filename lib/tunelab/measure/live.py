"""What a stage is measured by while it trains, beside its held-out loss: a metric of answers to a few held-out rows, a
few answers to show, and the loss on a few of the probe's instructions (forgetting).

    live_rows(stage, …) ──> LiveRows, read before training ──> beside(rows, …) ──> Beside, which the loop is handed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunelab.data import Example, chat_format, encode_prompt
from tunelab.errors import UserError, shown_name
from tunelab.machine import processes
from tunelab.measure.metrics import NAMED, Accuracy, ExactMatch, Metric, metric_named, metrics_for
from tunelab.measure.probe.read import instructions
from tunelab.measure.settings import LONGEST_ANSWER
from tunelab.measure.task import words_asked
from tunelab.spec import Stage, TrainConfig
from tunelab.train.beside import Beside, Look

if TYPE_CHECKING:
    from tunelab.data import Encoded
    from tunelab.losses import Loss
    from tunelab.model.load import Base
    from tunelab.techniques import Technique

FEWEST_AT_ONCE, MOST_AT_ONCE = 4, 32  # rows that are answered together, whatever the batch
ROWS_FOR_ONE = (
    4  # so many answered rows keep less (keys and values) than one that is trained, unless that is recomputed
)
EXACT = (ExactMatch.name, Accuracy.name)
TOO_LONG = 16  # tokens: what is longer than the right answer by so many is another one


@dataclass(frozen=True)
class LiveRows:
    """The rows of one stage. `answered` are its metric's, `shown` those whose answers are shown."""

    metric: Metric | None = None
    answered: tuple[Example, ...] = ()
    shown: tuple[Example, ...] = ()
    general: tuple[Encoded, ...] = ()
    notes: tuple[str, ...] = ()


def check_live(training: TrainConfig) -> None:
    """Refuse what can't be measured, whatever the rows.

    Raises:
        UserError: there is no such metric, or it can't say which of two values is better.
    """
    if training.metric is None:
        return
    metric = metric_named(training.metric)
    if training.choose_by == "metric" and metric.higher_is_better is None:
        raise UserError(
            f"choose_by = 'metric': neither a high nor a low {metric.name} is better, so it can't choose a step. "
            "Choose by 'loss', or another metric."
        )


def live_rows(stage: Stage, heldout: Sequence[Example], tokenizer: Any, max_length: int) -> LiveRows:
    """What `stage` is measured on: the first of its held-out rows that leave room for an answer within `max_length`
    tokens, and instructions spread evenly over all of the probe's.

    Raises:
        UserError: the metric does not fit the answers of these rows, or none of them can be answered.
    """
    training, notes = stage.training, list[str]()
    general = _general(training.forgetting_rows, tokenizer, max_length)
    if training.forgetting_rows and not general:
        notes.append(f"forgetting is not measured: no general instruction fits into {max_length} tokens")
    if stage.learn == "text":
        return LiveRows(general=general, notes=(*notes, *_notes_of_plain_text(training)))
    answered = _with_room(heldout[: training.metric_rows], tokenizer, max_length) if training.metric else []
    shown = _with_room(heldout[: training.samples], tokenizer, max_length)
    metric = metric_named(training.metric) if training.metric else None
    if metric:
        _check_fit(metric, stage, [one.answer for one in answered])
    for what, kept, asked in (
        (metric.title if metric else "", len(answered), training.metric_rows if metric else 0),
        ("what is shown of answers", len(shown), training.samples),
    ):
        if left_out := min(asked, len(heldout)) - kept:
            notes.append(f"{what} leaves out {left_out} held-out rows: their prompts fill max_length")
    return LiveRows(metric, tuple(answered), tuple(shown), general, tuple(notes))


def _with_room(examples: Sequence[Example], tokenizer: Any, max_length: int) -> list[Example]:
    """Those whose prompts leave room for an answer."""
    return [one for one in examples if len(encode_prompt(one.asked, tokenizer)) < max_length]


def _notes_of_plain_text(training: TrainConfig) -> list[str]:
    asked = [training.metric] if training.metric else []
    chosen = "; the held-out loss chooses the step" if training.choose_by == "metric" else ""
    notes = [f"{name} is not measured: plain text has no answers{chosen}" for name in asked]
    return notes + ["no answers are shown: plain text has none"] * bool(training.samples)


def _check_fit(metric: Metric, stage: Stage, references: list[str]) -> None:
    """Refuse a metric that can't read the right answers, or by which they are worth nothing themselves."""
    where = f"metric = '{metric.name}': it does not fit {shown_name(stage.data.title)}"
    if not references:
        raise UserError(f"{where}, whose prompts leave no room for an answer. Raise max_length.")
    fitting = [one.name for one in metrics_for(references) if one.name in NAMED]
    advice = f"Choose one that fits: {', '.join(fitting)}."
    try:
        value = float(metric.value(metric.sums(references, references).sum(0)))
    except (UserError, ValueError) as problem:
        reason = str(problem).partition(". ")[0]
        raise UserError(f"{where}. {reason}. {advice}") from None
    if metric.higher_is_better and not value > 0:
        raise UserError(f"{where}: by it even the right answers are worth {value:g}. {advice}")


def _general(count: int, tokenizer: Any, max_length: int) -> tuple[Encoded, ...]:
    if not count:
        return ()
    from tunelab.data.encode import encode_all

    every = instructions()
    some = [every[place * len(every) // count] for place in range(min(count, len(every)))]
    return tuple(encode_all(some, tokenizer, max_length)[0])


def beside(
    rows: LiveRows, base: Base, technique: Technique, model: Any, loss: Loss, training: TrainConfig
) -> Beside | None:
    """What the loop measures, on the model that it trains and by the way on which it computes its losses."""
    if not rows.answered and not rows.shown and not rows.general:
        return None
    answers = rows.answered or rows.shown
    return Beside(
        look=_Looking(rows, base, technique, model, loss, _at_once(training)) if answers else None,
        metric=rows.metric.name if rows.metric else None,
        metric_rows=len(rows.answered),
        higher_is_better=rows.metric is None or rows.metric.higher_is_better is not False,
        general=rows.general,
    )


def _at_once(training: TrainConfig) -> int:
    """How many rows are answered at once: as many as training has room for."""
    rows = training.batch_size * (1 if training.gradient_checkpointing is True else ROWS_FOR_ONE)
    return min(max(FEWEST_AT_ONCE, rows), MOST_AT_ONCE)


class _Looking:
    """Answers, as `Beside.look` gives them: greedy ones of at most `LONGEST_ANSWER` tokens, by the decoders that
    compare as well; those that are only asked whether they are right end where they can't be any more. Several
    processes share the rows."""

    def __init__(self, rows: LiveRows, base: Base, technique: Technique, model: Any, loss: Loss, at_once: int) -> None:
        from tunelab.answer.generation import end_ids
        from tunelab.fast.llama import FastLoss
        from tunelab.model.positions import answer_length

        self.rows, self.technique, self.model, self.tokenizer = rows, technique, model, base.tokenizer
        self.llama = loss.llama if isinstance(loss, FastLoss) else None
        self.examples = list({id(one): one for one in (*rows.answered, *rows.shown)}.values())
        self.prompts = [encode_prompt(one.asked, base.tokenizer) for one in self.examples]
        config, taken = base.model.config, technique.positions_taken
        self.longest = [
            answer_length(config, len(ids), self._most_tokens(example), taken)
            for example, ids in zip(self.examples, self.prompts, strict=True)
        ]
        self.ends = end_ids(base.tokenizer, base.model)
        self.words = chat_format(base.tokenizer).words
        self.references = [self.words(one.answer) for one in rows.answered]
        self.at_once = at_once

    def _most_tokens(self, example: Example) -> int:
        metric = self.rows.metric
        if metric is None or metric.name not in EXACT or any(example is one for one in self.rows.shown):
            return LONGEST_ANSWER
        right = self.tokenizer(example.answer, add_special_tokens=False).input_ids
        return min(LONGEST_ANSWER, len(right) + TOO_LONG)

    def __call__(self, tuned: bool) -> Look:
        answers = self._answers(tuned)
        found = dict(zip(map(id, self.examples), answers, strict=True))
        metric, value = self.rows.metric, None
        if metric is not None:
            given = [self.words(found[id(one)]) for one in self.rows.answered]
            value = float(metric.value(metric.sums(given, self.references).sum(0)))
        return Look(value, tuple((words_asked(one), found[id(one)]) for one in self.rows.shown))

    def _answers(self, tuned: bool) -> list[str]:
        from tunelab.answer.decoders import while_training
        from tunelab.answer.generation import answer_many, text_of

        mine = list(range(len(self.prompts)))[processes.index() :: processes.count()]
        one, made = while_training(self.model, self.technique, self.llama, tuned), list[tuple[int, str]]()
        if mine:
            for places, found in answer_many(
                [self.prompts[index] for index in mine],
                one.decoders,
                end_ids=self.ends,
                max_new_tokens=[self.longest[index] for index in mine],
                padded=one.padded,
                at_once=self.at_once,
            ):
                for place, columns in zip(places, found, strict=True):
                    made.append((mine[place], text_of(self.tokenizer, columns[0])))
        return [text for _index, text in sorted(processes.gathered(made))]
