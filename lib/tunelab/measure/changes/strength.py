"""One prompt answered with more and less of an adapter: from the base (0) over the trained result (1) to beyond it.

LoRA adds s B A x to what a layer gives, and at strength t it adds t s B A x. All strengths are answered together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tunelab.data import Message
from tunelab.errors import UserError
from tunelab.run.run import Run

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
STRONGEST, MOST = 1.5, 16
LONGEST_ANSWER = 64


@dataclass(frozen=True)
class StrengthAnswer:
    """The answer with so much of the adapter."""

    strength: float
    answer: str
    ended: bool  # by itself, not by the length limit


@dataclass(frozen=True)
class StrengthAnswers:
    """One prompt's answers, in the order that strengths were asked for; greedy."""

    prompt: str
    answers: tuple[StrengthAnswer, ...]
    notes: tuple[str, ...]


def answers_at_strengths(
    run: Run,
    prompt: str,
    strengths: Sequence[float] = STRENGTHS,
    *,
    system: str | None = None,
    max_new_tokens: int = LONGEST_ANSWER,
) -> StrengthAnswers:
    """Answers to a prompt at each strength of a run's adapter (`system` None: the run's own). At 0 it is the base's
    answer and at 1 the tuned model's.

    Raises:
        UserError: the run's technique has no strength (the reason is said), it has no adapter, or a setting is out of
            its range.
    """
    from tunelab.answer.decoders import Resident, Result
    from tunelab.answer.generation import answer_many, end_ids, text_of
    from tunelab.data import encode_prompt, prompt_notes
    from tunelab.model.load import load
    from tunelab.model.positions import answer_length

    _check(run, prompt, strengths, max_new_tokens)
    result = Result.of(run)
    techniques = [run.config.technique.at_strength(strength) for strength in strengths]
    base = load(run.base_spec)
    run.check_base(base.spec.repo_id, base.sha256)
    system = system or run.config.stages[run.progress().stage].data.system
    turns = [*([Message("system", system)] if system else []), Message("user", prompt)]
    ids = encode_prompt(turns, base.tokenizer)
    longest = answer_length(base.model.config, len(ids), max_new_tokens, run.config.technique.positions_taken)
    notes = prompt_notes(turns, base.tokenizer)
    if longest < max_new_tokens:
        notes.append(f"An answer ends after {longest} tokens: the model has no positions for more.")
    if run.config.technique.changes_nothing(run.adapter_path):
        notes.append("The adapter adds zero, so every strength answers as the base. Train it for more steps.")
    resident, ends = Resident(base), end_ids(base.tokenizer, base.model)
    made: dict[int, list[int]] = {}
    results = [replace(result, technique=technique) for technique in techniques]
    for one in resident.passes(results, columns=range(1, len(results) + 1)):
        for _indices, (columns,) in answer_many([ids], one.decoders, end_ids=ends, max_new_tokens=longest):
            made |= dict(zip(one.columns, columns, strict=True))
    answers = tuple(
        StrengthAnswer(strength, text_of(base.tokenizer, made[column]), ended=len(made[column]) < longest)
        for column, strength in enumerate(strengths, 1)
    )
    return StrengthAnswers(prompt, answers, tuple(notes))


def _check(run: Run, prompt: str, strengths: Sequence[float], max_new_tokens: int) -> None:
    if not prompt.strip():
        raise UserError("The prompt is empty. Write a question.")
    if not 1 <= len(strengths) <= MOST:
        raise UserError(f"{len(strengths)} strengths: give 1 to {MOST}.")
    if wrong := [strength for strength in strengths if not 0 <= strength <= STRONGEST]:
        raise UserError(
            f"strength = {wrong[0]:g}: allowed are 0 (the base) to {STRONGEST:g}; 1 is the trained adapter."
        )
    if not 1 <= max_new_tokens <= 4096:
        raise UserError(f"max_new_tokens = {max_new_tokens}: allowed are 1 to 4096.")
    run.check_result()
