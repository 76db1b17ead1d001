"""Base and tuned, side by side, on one resident base.

Exactly one thread touches a model (`Comparer` owns it), because PEFT's switches are not thread-safe. LoRA answers come
from one batch: a row without an adapter, and one with each adapter; questions that come meanwhile join it, and leave it
when they are answered. Any other technique takes turns with the base, adapter off and on, and has the model to itself
until it is done: what has come later waits. Every answer says where it comes from.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelab.answer.question import Comparison, Question, Talk, check_decoding, positions_taken
from tunelab.errors import UserError
from tunelab.machine import libraries
from tunelab.run.run import Run
from tunelab.spec import base_differences

if TYPE_CHECKING:
    from tunelab.answer.decoders import Resident
    from tunelab.answer.together import Asked, Together
    from tunelab.data import Message

MAX_COLUMNS = 9
MAX_ROWS = 36  # of answers that are made together: four questions to as many columns as there can be


@dataclass(frozen=True)
class _Request:
    updates: queue.SimpleQueue[Any]  # what it brings, then _END or an exception
    work: Callable[[], Iterator[Any]] | None = None  # run by the owner thread, which has the model to itself meanwhile
    question: Question | None = None  # or what is asked, together with others where that can be


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
        self._closed = False  # nothing that comes later is taken
        self._start = threading.Lock()
        self._resident: Resident | None = None
        self._together: Together | None = None  # what is answered together, on the resident base
        self._answering: list[tuple[_Request, Talk, Asked]] = []

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
        check_decoding(max_new_tokens, temperature)
        stop = cancel or threading.Event()
        question = Question(opened, prompt, system or None, max_new_tokens, temperature, seed, stop)
        try:
            yield from self._submit(question=question)
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
        check_decoding(max_new_tokens, 0.0)
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

    def _submit(
        self, work: Callable[[], Iterator[Any]] | None = None, question: Question | None = None
    ) -> Iterator[Any]:
        """What the owner thread brings."""
        with self._start:
            if self._thread is None:
                self._thread = threading.Thread(target=self._own, daemon=True, name="model owner")
                self._thread.start()
        request = _Request(queue.SimpleQueue(), work, question)
        self._requests.put(request)
        while (update := request.updates.get()) is not _END:
            if isinstance(update, BaseException):
                raise update
            yield update

    def _own(self) -> None:
        """The owner thread: in the order they came, each by itself or together with those before it."""
        libraries.prepare()
        self._closed = False
        waiting: deque[_Request] = deque()
        while self._take(waiting):
            together = [waiting.popleft() for _ in range(self._joining(waiting))]
            if together or self._answering:
                self._go_on(together)
            else:
                self._alone(waiting)
        self._forget()

    def _take(self, waiting: deque[_Request]) -> bool:
        """Add what has come; where there is nothing to do, wait for it. False: the comparer is closed, and what came
        before is done."""
        while not self._closed and (not self._requests.empty() or not (waiting or self._answering)):
            request = self._requests.get()
            if request is None:
                self._closed = True
            else:
                waiting.append(request)
        return bool(waiting or self._answering)

    def _joining(self, waiting: deque[_Request]) -> int:
        """How many of those that wait longest can be answered together with what is being answered."""
        rows = self._together.rows if self._together else 0
        count = 0
        for request in waiting:
            question = request.question
            if self._resident is None or question is None:
                break
            rows += 1 + len(question.runs)
            if rows > MAX_ROWS and (count or self._answering):
                break
            if not self._resident.in_one_batch(question.runs, question.spec):
                break
            count += 1
        return count

    def _go_on(self, joining: Sequence[_Request]) -> None:
        """The next token of every answer that is made together, and the first ones of those that join."""
        from tunelab.answer.together import Together

        try:
            assert self._resident is not None
            if self._together is None:
                self._together = Together(self._resident.llama())
            if joining:
                self._join(self._together, self._resident, joining)
            else:
                self._together.step()
            for request, talk, asked in self._answering:
                if not asked.going:
                    talk.end()
                    request.updates.put(_END)
            self._answering = [one for one in self._answering if one[2].going]
        except BaseException as error:
            for request in (*(request for request, *_ in self._answering), *joining):
                request.updates.put(error)
            self._forget()  # whatever state it is in, do not answer from it again

    def _join(self, together: Together, resident: Resident, joining: Sequence[_Request]) -> None:
        from tunelab.answer.decoders import Result
        from tunelab.answer.together import Asked

        begun = []
        for request in joining:
            question = request.question
            assert question is not None
            try:
                self._check_bases(question.runs)
                talk = Talk(question, resident.base, request.updates.put)
                adapters = [None, *(resident.factors(Result.of(run)) for run in question.runs)]
            except Exception as error:  # of this question alone
                request.updates.put(error)
                continue
            asked = Asked(
                talk.prompt,
                adapters,
                talk.longest,
                talk.end_ids,
                tell=partial(talk.hear, range(len(adapters))),
                is_cancelled=question.cancel.is_set,
                temperature=question.temperature,
                seed=question.seed,
            )
            begun.append((request, talk, asked))
        self._answering += begun
        if begun:
            together.join([asked for _request, _talk, asked in begun])

    def _alone(self, waiting: deque[_Request]) -> None:
        """The first of those that wait, with nobody beside it. A question that others can join waits again, at the
        front, once its base is there."""
        request = waiting.popleft()
        try:
            libraries.load()  # the first one imports torch
            if request.question is None:
                assert request.work is not None
                for update in request.work():
                    request.updates.put(update)
            else:
                question, tell = request.question, request.updates.put
                resident = self._announced(question, tell)
                if resident.in_one_batch(question.runs, question.spec):
                    waiting.appendleft(request)
                    return
                self._take_turns(Talk(question, resident.base, tell), resident)
            request.updates.put(_END)
        except BaseException as error:
            self._forget()
            request.updates.put(error)

    def _announced(self, question: Question, tell: Callable[[Comparison], None]) -> Resident:
        """The base of a question, with word of it where it has to be loaded."""
        spec = question.spec
        before = self._resident.base if self._resident else None
        if before is None or base_differences(before.spec, spec):
            swapping = f", in place of {before.spec.repo_id} ({before.precision})" if before else ""
            tell(Comparison(question.prompt, question.system, (), False, f"loading {spec.repo_id}{swapping} …"))
        return self._made_resident(question.runs)

    def _take_turns(self, talk: Talk, resident: Resident) -> None:
        """Answers of techniques that do not share a batch."""
        from tunelab.answer.decoders import Result
        from tunelab.answer.generation import decode

        question = talk.question
        for together in resident.passes([Result.of(run) for run in question.runs]):
            talk.begin()
            for step in decode(
                together.decoders(1, len(talk.prompt) + talk.longest),
                [talk.prompt],
                end_ids=talk.end_ids,
                max_new_tokens=talk.longest,
                temperature=question.temperature,
                seed=question.seed,
                cancelled=question.cancel.is_set,
            ):
                talk.hear(together.columns, step)
        talk.end()

    def _forget(self) -> None:
        self._resident = self._together = None
        self._answering = []

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
        taken = positions_taken(runs)
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
        self._check_bases(runs)
        return self._resident

    def _check_bases(self, runs: tuple[Run, ...]) -> None:
        assert self._resident is not None
        for run in runs:
            run.check_base(runs[0].base_spec.repo_id, self._resident.base.sha256)


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
