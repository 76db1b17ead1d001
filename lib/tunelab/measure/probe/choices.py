"""Which ending of a question a model finds most likely.

    context:  the tokenizer's own beginning of a text (`<bos>`, or nothing) and the question's text
    scored:   a space and the ending, sum of log p of its tokens given the context, divided by the ending's bytes

Bytes are those of the ending in UTF-8 without the space. This is `acc_norm` of lm-evaluation-harness (Gao et al.),
which divides by characters: in ASCII the same. White space around text and ending is dropped, as that harness does with
HellaSwag, where endings of every second row begin with some: two spaces in a row would be scored.

Plain text, no chat template: it asks what the weights know, not whether the form of an answer is kept. Tuning changes
that form on purpose, a template would move every figure with it, models without one could not be measured, and
published figures are read this way.

Where the loss is a fast one, a question's endings are one batch, and what they begin with is computed once; else rows
of similar length are padded on the right.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunelab.data import ChatFormat, Encoded, chat_format
from tunelab.errors import UserError, shortened
from tunelab.measure.counting import Counting
from tunelab.measure.known import Known
from tunelab.measure.probe.read import Probe, Question
from tunelab.measure.scoring import by_length, summed

if TYPE_CHECKING:
    from tunelab.losses import Loss
    from tunelab.model.load import Base

BATCH, BATCH_TOKENS = 64, 2048  # rows scored at once, and positions


@dataclass(frozen=True)
class Answered:
    """What a model makes of one question: log p of each ending in nats, and its length in bytes."""

    log_likelihoods: tuple[float, ...]
    lengths: tuple[int, ...]
    right: int

    @property
    def chosen(self) -> int:
        """The place of the ending with the highest log p per byte; the first one of equals."""
        per_byte = [value / length for value, length in zip(self.log_likelihoods, self.lengths, strict=True)]
        return per_byte.index(max(per_byte))

    @property
    def is_right(self) -> bool:
        return self.chosen == self.right


@dataclass(frozen=True)
class Scores:
    """A model's answers to a probe, question by question."""

    answers: tuple[Answered, ...]
    notes: tuple[str, ...] = ()

    @property
    def right(self) -> list[int]:
        """1 where the right ending was chosen, else 0."""
        return [int(answer.is_right) for answer in self.answers]

    @property
    def accuracy(self) -> float:
        """Questions answered right, in per cent."""
        return 100 * sum(self.right) / len(self.answers)


def score_choices(
    probe: Probe,
    loss: Loss,
    base: Base,
    *,
    max_length: int | None = None,
    known: Known | None = None,
    on_progress: Callable[[str], None] = lambda message: None,
) -> Scores:
    """What the loss's model, as it is now (adapter on, or off), makes of the questions; from `known` where it has been
    asked them before. A question that does not fit into `max_length` tokens (None: the model's positions) loses the
    beginning of its text, the same for all endings.

    Raises:
        UserError: an ending alone does not fit.
    """
    from tunelab.model.load import unwrapped
    from tunelab.model.positions import positions

    limit = max_length or positions(unwrapped(loss.model).config)
    encoded = [encode_question(question, base.tokenizer, limit) for question in probe.questions]
    rows = [row for endings in encoded for row in endings]

    def measure(_all: object = None) -> list[tuple[int, list[float]]]:
        values = [0.0] * len(rows)
        said = Counting("questions", len(encoded), on_progress)
        of = [number for number, endings in enumerate(encoded) for _ending in endings]
        left = [len(endings) for endings in encoded]
        for place, (value, _count) in summed(rows, _batches(encoded, loss.fast), loss, base):
            values[place] = -value
            left[of[place]] -= 1
            said.add(int(not left[of[place]]))
        return [(0, values)]

    if known is None:
        ((_place, values),) = measure()
    else:
        (values,) = known.ask("choices", [[[row.input_ids, sum(row.scored)] for row in rows]], measure)
    return Scores(tuple(_answers(probe.questions, values)), tuple(_notes(probe, encoded, base)))


def _batches(encoded: Sequence[list[Encoded]], fast: bool) -> list[list[int]]:
    """Places of the endings that are computed together: those of a question, whose beginning a fast loss computes once,
    else those of similar length."""
    if not fast:
        return by_length([row for endings in encoded for row in endings], BATCH, BATCH_TOKENS)
    counts = itertools.accumulate((len(endings) for endings in encoded), initial=0)
    return [list(range(first, stop)) for first, stop in itertools.pairwise(counts)]


def encode_question(question: Question, tokenizer: Any, limit: int | None = None) -> list[Encoded]:
    """The question with each of its endings, of which only the ending is scored. All rows share the tokens before it:
    where an ending's first letters join the text's last ones in a token, that token is scored for every ending.

    Raises:
        UserError: an ending alone has more than `limit` tokens.
    """
    chat = chat_format(tokenizer)
    context = question.context.strip()
    before = _tokens(chat, context)
    wholes = [_tokens(chat, f"{context} {choice.strip()}") for choice in question.choices]
    shared = min(_common(before, whole) for whole in wholes)
    # something has to stand before the first scored token
    start = chat.text_start or ([] if shared else [tokenizer.eos_token_id or 0])
    over = max(0, max(len(start) + len(whole) for whole in wholes) - limit) if limit else 0
    if over > shared or (over == shared and not start):
        raise _too_long(question, limit)
    rows = [start + whole[over:] for whole in wholes]
    begins = len(start) + shared - over
    return [Encoded(row, [place >= begins for place in range(len(row))], truncated=over > 0) for row in rows]


def _answers(questions: Sequence[Question], values: Sequence[float]) -> Iterator[Answered]:
    left = iter(values)
    for question in questions:
        lengths = tuple(len(choice.strip().encode()) for choice in question.choices)
        yield Answered(tuple(next(left) for _choice in lengths), lengths, question.right)


def _notes(probe: Probe, encoded: Sequence[list[Encoded]], base: Base) -> Iterator[str]:
    if cut := sum(endings[0].truncated for endings in encoded):
        yield f"{cut:,} questions of {probe.name} are longer than the model's rows and lost the beginning of their text"
    control = chat_format(base.tokenizer).control
    if broken := sum(any(control.first_in(t) for t in (one.context, *one.choices)) for one in probe.questions):
        yield f"{broken:,} questions of {probe.name} hold control tokens of the model, which are read as ordinary text"


def _tokens(chat: ChatFormat, text: str) -> list[int]:
    return chat.tokens(chat.control.broken(text))


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens the two begin with alike."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _too_long(question: Question, limit: int | None) -> UserError:
    longest = max(question.choices, key=len)
    return UserError(
        f"The probe's {question.where or 'question'}: its ending {shortened(longest)} does not fit into a row of "
        f"{limit} tokens beside a word of its text. Leave the question out, or raise max_length."
    )
