"""Base and tuned, side by side, on one resident base.

Exactly one thread touches a model (`Comparer` owns it; requests queue), because PEFT's switches are not thread-safe.
LoRA answers come from one batch: row 0 without an adapter, row i with adapter i. Any other technique takes turns with
the base, adapter off and on; where there are several, each of them has a pass of its own. Every answer says where it
comes from.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunelab.errors import UserError
from tunelab.machine import libraries
from tunelab.run.run import Run, list_runs
from tunelab.spec import base_differences

if TYPE_CHECKING:
    from tunelab.answer.decoders import Resident
    from tunelab.data import Message
    from tunelab.model.load import Base

MAX_COLUMNS = 9
StopReason = Literal["end of turn", "length", "cancelled"]


@dataclass(frozen=True)
class Provenance:
    """Where an answer comes from, so that nobody has to believe it."""

    base: str
    base_sha256: str
    adapter: str | None  # id of the run; None: the base alone
    precision: str
    template: str
    decoding: str

    @property
    def text(self) -> str:
        """One line for people."""
        adapter = f"adapter {self.adapter} on" if self.adapter else "adapter off"
        return (
            f"{self.base} ({self.base_sha256[:8]}) · {adapter} · {self.precision} · {self.template} · {self.decoding}"
        )


@dataclass(frozen=True)
class Answer:
    label: str
    text: str
    tokens: int
    stop_reason: StopReason | None
    seconds: float
    provenance: Provenance


@dataclass(frozen=True)
class Comparison:
    """One prompt, the same decoding, one answer by the base and one by each adapter."""

    prompt: str
    system: str | None
    answers: tuple[Answer, ...]
    done: bool
    note: str | None = None


@dataclass(frozen=True)
class _Request:
    work: Callable[[], Iterator[Any]]  # run by the owner thread
    updates: queue.SimpleQueue[Any]  # what it yields, then _END or the exception it raised


@dataclass(frozen=True)
class _Question:
    runs: tuple[Run, ...]
    prompt: str
    system: str | None
    max_new_tokens: int
    temperature: float
    seed: int
    cancel: threading.Event


_END = object()


def compare(
    runs: Run | str | Sequence[Run | str],
    prompt: str,
    *,
    root: str | Path | None = None,
    **decoding: Any,
) -> Comparison:
    """The finished comparison of base and runs on one prompt; `decoding` as in `Comparer.stream`.

    Raises:
        UserError: a run has no adapter, or a setting is out of its range.
    """
    chosen = [runs] if isinstance(runs, (Run, str)) else list(runs)
    with Comparer(root) as comparer:
        *_, last = comparer.stream(chosen, prompt, **decoding)
    return last


class Comparer:
    """Owns the thread that touches models, and the one base that is resident. Close it, or use it in a `with`."""

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = root
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._start = threading.Lock()
        self._resident: Resident | None = None

    def __enter__(self) -> Comparer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the owner thread and release the model."""
        if self._thread:
            self._requests.put(None)
            self._thread.join()
            self._thread = None

    def stream(
        self,
        runs: Sequence[Run | str],
        prompt: str,
        *,
        system: str | None = None,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
        cancel: threading.Event | None = None,
    ) -> Iterator[Comparison]:
        """The comparison as it grows, a token per answer each time; the last one is `done`.

        Closing the iterator, or setting `cancel`, stops at the next token.

        Raises:
            UserError: a run has no adapter, the runs have different bases, or a setting is out of its range.
        """
        if not prompt.strip():
            raise UserError("The prompt is empty. Write a question, or choose one of the examples.")
        opened = self._opened(runs)
        _check_decoding(max_new_tokens, temperature)
        stop = cancel or threading.Event()
        question = _Question(opened, prompt, system or None, max_new_tokens, temperature, seed, stop)
        try:
            yield from self._submit(lambda: self._answer(question))
        finally:
            stop.set()

    def answers(
        self,
        runs: Sequence[Run | str],
        prompts: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int = 128,
        on_progress: Callable[[int], None] = lambda done: None,
    ) -> list[list[str]]:
        """Greedy answers to many prompts: for each prompt, the base's and each run's. Many rows are decoded at once.

        `prompts` are the turns up to the answer (`Example.asked`); `on_progress` hears how many are done.

        Raises:
            UserError: a run has no adapter, or the runs have different bases.
        """
        opened = self._opened(runs)
        _check_decoding(max_new_tokens, 0.0)
        everything: list[list[str]] = [[] for _ in prompts]
        done = 0
        for indices, answers in self._submit(lambda: self._answer_all(opened, prompts, max_new_tokens)):
            for index, texts in zip(indices, answers, strict=True):
                everything[index] = texts
            done += len(indices)
            on_progress(done)
        return everything

    def _opened(self, runs: Sequence[Run | str]) -> tuple[Run, ...]:
        if not runs:
            raise UserError("No run is chosen to compare with the base. Choose one; if there is none yet, train one.")
        if len(runs) >= MAX_COLUMNS:
            raise UserError(f"{len(runs)} runs: give 1 to {MAX_COLUMNS - 1} to compare with the base.")
        opened = tuple(run if isinstance(run, Run) else Run.open_to_ask(run, self.root) for run in runs)
        _check_runs(opened)
        return opened

    def _submit(self, work: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """What `work` yields in the owner thread."""
        with self._start:
            if self._thread is None:
                self._thread = threading.Thread(target=self._own, daemon=True, name="model owner")
                self._thread.start()
        request = _Request(work, queue.SimpleQueue())
        self._requests.put(request)
        while (update := request.updates.get()) is not _END:
            if isinstance(update, BaseException):
                raise update
            yield update

    def _own(self) -> None:
        """The owner thread: one request after the other."""
        libraries.prepare()
        while (request := self._requests.get()) is not None:
            try:
                libraries.load()
                for update in request.work():
                    request.updates.put(update)
                request.updates.put(_END)
            except BaseException as error:
                self._forget()  # whatever state it is in, do not answer from it again
                request.updates.put(error)
        self._forget()

    def _forget(self) -> None:
        self._resident = None

    def _answer(self, asked: _Question) -> Iterator[Comparison]:
        from tunelab.answer.decoders import Result
        from tunelab.answer.generation import decode, end_ids, text_of
        from tunelab.data import Message, encode_prompt, prompt_notes
        from tunelab.model.positions import answer_length

        spec = asked.runs[0].base_spec
        before = self._resident.base if self._resident else None
        if before is None or base_differences(before.spec, spec):
            swapping = f", in place of {before.spec.repo_id} ({before.precision})" if before else ""
            yield Comparison(asked.prompt, asked.system, (), False, f"loading {spec.repo_id}{swapping} …")
        resident = self._made_resident(asked.runs)
        base = resident.base
        turns = [Message("user", asked.prompt)]
        system = asked.system or _system_of(asked.runs[0])
        if system:
            turns.insert(0, Message("system", system))
        prompt = encode_prompt(turns, base.tokenizer)
        taken = _positions_taken(asked.runs)
        longest = answer_length(base.model.config, len(prompt), asked.max_new_tokens, taken)
        answers = _blank_answers(base, asked)
        cut = f"an answer ends after {longest} tokens: the model has no positions for more"
        said = [*prompt_notes(turns, base.tokenizer), *_notes(asked.runs), *base.notes]
        note = _sentences(*said, cut if longest < asked.max_new_tokens else None)
        stops = end_ids(base.tokenizer, base.model)
        for together in resident.passes([Result.of(run) for run in asked.runs]):
            generated: dict[int, list[int]] = {column: [] for column in together.columns}
            started = time.perf_counter()
            for step in decode(
                together.decoders(1, len(prompt) + longest),
                [prompt],
                end_ids=stops,
                max_new_tokens=longest,
                temperature=asked.temperature,
                seed=asked.seed,
                cancelled=asked.cancel.is_set,
            ):
                for column, token in zip(together.columns, step, strict=True):
                    if token is None:
                        continue
                    if token not in stops:
                        generated[column].append(token)
                    answers[column] = replace(
                        answers[column],
                        text=text_of(base.tokenizer, generated[column]),
                        tokens=len(generated[column]),
                        stop_reason="end of turn" if token in stops else None,
                        seconds=time.perf_counter() - started,
                    )
                yield Comparison(asked.prompt, system, tuple(answers), False, note)
        ending: StopReason = "cancelled" if asked.cancel.is_set() else "length"
        final = tuple(replace(a, stop_reason=a.stop_reason or ending) for a in answers)
        yield Comparison(asked.prompt, system, final, True, note)

    def _answer_all(
        self, runs: tuple[Run, ...], prompts: Sequence[Sequence[Message]], max_new_tokens: int
    ) -> Iterator[tuple[list[int], list[list[str]]]]:
        """Indices of prompts and, for each, the answers of base and runs."""
        from tunelab.answer.decoders import Result
        from tunelab.answer.generation import answer_many, end_ids, text_of
        from tunelab.data.encode import encode_prompt
        from tunelab.model.positions import answer_length

        resident = self._made_resident(runs)
        base = resident.base
        encoded = [encode_prompt(turns, base.tokenizer) for turns in prompts]
        taken = _positions_taken(runs)
        longest = [answer_length(base.model.config, len(ids), max_new_tokens, taken) for ids in encoded]
        answers = [[""] * (1 + len(runs)) for _ in prompts]
        waiting = [1 + len(runs)] * len(prompts)
        ends = end_ids(base.tokenizer, base.model)
        for together in resident.passes([Result.of(run) for run in runs]):
            answered = answer_many(
                encoded, together.decoders, end_ids=ends, max_new_tokens=longest, padded=together.padded
            )
            for indices, made in answered:
                for index, texts in zip(indices, made, strict=True):
                    for column, ids in zip(together.columns, texts, strict=True):
                        answers[index][column] = text_of(base.tokenizer, ids)
                    waiting[index] -= len(together.columns)
                done = [index for index in indices if not waiting[index]]
                yield done, [answers[index] for index in done]

    def _made_resident(self, runs: tuple[Run, ...]) -> Resident:
        """The base of these runs, loaded in place of the one before if need be."""
        from tunelab.answer.decoders import Resident
        from tunelab.model.load import load

        spec = runs[0].base_spec
        if self._resident is None or base_differences(self._resident.base.spec, spec):
            self._forget()  # release the old one before the new one is loaded
            self._resident = Resident(load(spec))
        for run in runs:
            run.check_base(spec.repo_id, self._resident.base.sha256)
        return self._resident


def _positions_taken(runs: tuple[Run, ...]) -> int:
    """The most that any run's own tokens take: every column has the same room for its answer."""
    return max(run.config.technique.positions_taken for run in runs)


def _sentences(*notes: str | None) -> str | None:
    """Notes as sentences, one after the other; None where there is none."""
    sentences = [note if note.endswith(".") else f"{note[0].upper()}{note[1:]}." for note in notes if note]
    return " ".join(sentences) or None


def _check_decoding(max_new_tokens: int, temperature: float) -> None:
    if not 1 <= max_new_tokens <= 4096:
        raise UserError(f"max_new_tokens = {max_new_tokens}: allowed are 1 to 4096.")
    if not 0 <= temperature <= 5:
        raise UserError(f"temperature = {temperature}: allowed are 0 (greedy) to 5.")


def _check_runs(runs: tuple[Run, ...]) -> None:
    for run in runs:
        _ = run.config  # one of another version says so
        run.check_result()
    specs = [run.base_spec for run in runs]
    if differing := base_differences(*specs):
        bases = (
            f"{run.name} ({', '.join(f'{name} {getattr(spec, name)}' for name in differing)})"
            for run, spec in zip(runs, specs, strict=True)
        )
        raise UserError(f"These runs stand on different bases: {'; '.join(bases)}. Compare runs of one base.")


def _system_of(run: Run) -> str | None:
    return run.config.stages[run.progress().stage].data.system


def _blank_answers(base: Base, request: _Question) -> list[Answer]:
    decoding = "greedy" if request.temperature == 0 else f"temperature {request.temperature:g}, seed {request.seed}"
    provenance = Provenance(
        base=base.spec.repo_id,
        base_sha256=base.sha256,
        adapter=None,
        precision=base.precision,
        template="the model's chat template" if base.tokenizer.chat_template else "plain template",
        decoding=decoding,
    )
    blank = Answer("base", "", 0, None, 0.0, provenance)
    tuned = [replace(blank, label=run.name, provenance=replace(provenance, adapter=run.id)) for run in request.runs]
    return [blank, *tuned]


def _notes(runs: tuple[Run, ...]) -> list[str]:
    notes = []
    for run in runs:
        if run.config.technique.changes_nothing(run.adapter_path):
            notes.append(f"{run.name} changes nothing: its adapter adds zero. Train it for more steps.")
    training = next((r for r in list_runs(runs[0].root) if r.is_alive), None)
    if training:
        notes.append(f"{training.name} is training on this machine, so answers come slower.")
    return notes
