"""Base and tuned, side by side, on one resident base.

Exactly one thread touches a model (`Comparer` owns it; requests queue), because PEFT's switches are not thread-safe.
LoRA answers come from one batch: row 0 without an adapter, row i with adapter i. Any other technique takes turns, with
the adapter off and on. Every answer says where it comes from.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunelab.errors import UserError
from tunelab.runs import Run, list_runs

if TYPE_CHECKING:
    from tunelab.data import Message
    from tunelab.models import Base

MAX_COLUMNS = 9
ROWS_AT_ONCE = 32  # prompts of one length that are answered in one batch
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
        self._base: Base | None = None
        self._attached: tuple[str, Any, Any] | None = None

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
        opened = tuple(run if isinstance(run, Run) else Run.open(run, self.root) for run in runs)
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
        while (request := self._requests.get()) is not None:
            try:
                for update in request.work():
                    request.updates.put(update)
                request.updates.put(_END)
            except BaseException as error:
                self._base = self._attached = None  # whatever state it is in, do not answer from it again
                request.updates.put(error)
        self._base = self._attached = None

    def _answer(self, asked: _Question) -> Iterator[Comparison]:
        from tunelab.data.encode import encode_prompt
        from tunelab.data.examples import Message
        from tunelab.generation import decode, end_ids

        spec = asked.runs[0].base_spec
        if self._base is None or self._base.spec != spec:
            swapping = f", in place of {self._base.spec.repo_id} ({self._base.precision})" if self._base else ""
            yield Comparison(asked.prompt, asked.system, (), False, f"loading {spec.repo_id}{swapping} …")
        base = self._resident(asked.runs)
        turns = [Message("user", asked.prompt)]
        system = asked.system or _system_of(asked.runs[0])
        if system:
            turns.insert(0, Message("system", system))
        prompt = encode_prompt(turns, base.tokenizer)
        decoders = self._decoders(base, asked.runs, 1, len(prompt) + asked.max_new_tokens)
        answers = _blank_answers(base, asked)
        note = _note(asked.runs)
        stops = end_ids(base.tokenizer, base.model)
        generated: list[list[int]] = [[] for _ in answers]
        started = time.perf_counter()
        for step in decode(
            decoders,
            [prompt],
            end_ids=stops,
            max_new_tokens=asked.max_new_tokens,
            temperature=asked.temperature,
            seed=asked.seed,
            cancelled=asked.cancel.is_set,
        ):
            for index, token in enumerate(step):
                if token is None:
                    continue
                if token not in stops:
                    generated[index].append(token)
                answers[index] = replace(
                    answers[index],
                    text=_text(base.tokenizer, generated[index]),
                    tokens=len(generated[index]),
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
        """Indices of prompts and, for each, the answers of base and runs. Prompts of one length are decoded at once:
        nothing is padded, so every answer is what it would be alone."""
        from tunelab.data.encode import encode_prompt
        from tunelab.generation import decode, end_ids

        base = self._resident(runs)
        encoded = [encode_prompt(turns, base.tokenizer) for turns in prompts]
        stops = end_ids(base.tokenizer, base.model)
        columns = 1 + len(runs)
        by_length = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
        for length, group in itertools.groupby(by_length, key=lambda index: len(encoded[index])):
            together = list(group)
            for start in range(0, len(together), ROWS_AT_ONCE):
                indices = together[start : start + ROWS_AT_ONCE]
                decoders = self._decoders(base, runs, len(indices), length + max_new_tokens)
                asked = [encoded[index] for index in indices]
                ids: list[list[int]] = [[] for _ in range(columns * len(indices))]
                for step in decode(decoders, asked, end_ids=stops, max_new_tokens=max_new_tokens):
                    for row, token in enumerate(step):
                        if token is not None and token not in stops:
                            ids[row].append(token)
                # rows stand column by column: every prompt by the base, then every prompt by the first run, …
                texts = [_text(base.tokenizer, row) for row in ids]
                yield indices, [texts[place :: len(indices)] for place in range(len(indices))]

    def _resident(self, runs: tuple[Run, ...]) -> Base:
        """The base of these runs, loaded in place of the one before if need be."""
        from tunelab.models import load

        spec = runs[0].base_spec
        if self._base is None or self._base.spec != spec:
            self._base = self._attached = None  # release the old one before the new one is loaded
            self._base = load(spec)
        _check_base(self._base, runs)
        return self._base

    def _decoders(self, base: Base, runs: tuple[Run, ...], rows: int, capacity: int) -> list[Any]:
        """Decoders of `rows` prompts by the base, then by each run: the fast one for everything at once, or a plain one
        per column where it does not fit."""
        from tunelab.fast.decode import FastDecoder
        from tunelab.fast.llama import FastLlama, Unsupported
        from tunelab.techniques import LoRA

        if all(isinstance(run.config.technique, LoRA) for run in runs):
            try:
                self._detach()
                adapters = [run.config.technique.factors(run.adapter_path) for run in runs]
                each = [adapter for adapter in (None, *adapters) for _ in range(rows)]
                return [FastDecoder(FastLlama(base.model), each, capacity)]
            except Unsupported:
                pass
        if len(runs) > 1:
            raise UserError("Several runs side by side need LoRA on a Llama model. Choose one run.")
        return self._plain_decoders(base, runs[0], rows)

    def _plain_decoders(self, base: Base, run: Run, rows: int) -> list[Any]:
        from contextlib import nullcontext

        from tunelab.generation import PlainDecoder

        technique = run.config.technique
        if self._attached is None or self._attached[0] != run.id:
            self._detach()
            self._attached = (run.id, technique, technique.load(base, run.adapter_path).eval())
        model = self._attached[2]
        return [PlainDecoder(model, lambda: technique.off(model), rows), PlainDecoder(model, nullcontext, rows)]

    def _detach(self) -> None:
        """Take an attached adapter off the resident base."""
        if self._attached:
            _run_id, technique, model = self._attached
            technique.detach(model)
            self._attached = None


def _check_decoding(max_new_tokens: int, temperature: float) -> None:
    if not 1 <= max_new_tokens <= 4096:
        raise UserError(f"max_new_tokens = {max_new_tokens}: allowed are 1 to 4096.")
    if not 0 <= temperature <= 5:
        raise UserError(f"temperature = {temperature}: allowed are 0 (greedy) to 5.")


def _check_runs(runs: tuple[Run, ...]) -> None:
    for run in runs:
        _ = run.config  # one of another version says so
        if not run.has_adapter:
            raise UserError(
                f"Run {run.id} has no adapter yet ({run.progress().message}). Choose a finished or stopped run."
            )
    specs = {run.base_spec for run in runs}
    if len(specs) > 1:
        raise UserError(
            f"These runs stand on different bases ({', '.join(sorted(s.repo_id for s in specs))}, or another "
            "precision). Compare runs of one base."
        )


def _check_base(base: Base, runs: tuple[Run, ...]) -> None:
    for run in runs:
        started = run.progress().started
        if started and started.base_sha256 != base.sha256:
            raise UserError(
                f"Run {run.id} was trained on other weights than '{base.spec.repo_id}' has now (sha256 "
                f"{started.base_sha256[:12]}… then, {base.sha256[:12]}… now). Train again on these."
            )


def _system_of(run: Run) -> str | None:
    return run.config.stages[-1].data.system


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


def _note(runs: tuple[Run, ...]) -> str | None:
    notes = []
    for run in runs:
        if _changes_nothing(run):
            notes.append(f"{run.name} changes nothing: its adapter adds zero. Train it for more steps.")
    training = next((r for r in list_runs(runs[0].root) if r.is_alive), None)
    if training:
        notes.append(f"{training.name} is training on this machine, so answers come slower.")
    return " ".join(notes) or None


def _changes_nothing(run: Run) -> bool:
    """Whether a LoRA adapter is as it was before the first step (every B zero)."""
    from tunelab.techniques import LoRA

    technique = run.config.technique
    if not isinstance(technique, LoRA):
        return False
    return not any(bool(b.any()) for _a, b, _scale in technique.factors(run.adapter_path).values())


def _text(tokenizer: Any, ids: list[int]) -> str:
    """The text so far; a character whose bytes are not complete yet is left out."""
    return str(tokenizer.decode(ids, skip_special_tokens=True)).rstrip("\ufffd")
