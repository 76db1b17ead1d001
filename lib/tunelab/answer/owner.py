"""The one thread that touches models, because PEFT's switches are not thread-safe, and the one base that is resident.

At each step it gives a token to everybody who is answered in one batch (`Together`), and then one to whoever's turn it
is among those who can't share it (`in_turns`). Who comes waits in order: for room in the batch, for a turn, or for the
base to be swapped, and is told what for. A question that fails ends alone.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tunelab.answer.columns import counted
from tunelab.answer.requests import Request
from tunelab.errors import UserError
from tunelab.machine import libraries
from tunelab.run.run import Run
from tunelab.spec import ModelSpec, base_differences

if TYPE_CHECKING:
    from tunelab.answer.decoders import Resident
    from tunelab.answer.talk import Talk
    from tunelab.answer.together import Asked, Together

log = logging.getLogger(__name__)
KEPT_SECONDS = 60.0  # a base that was asked within this time is not taken away for one that may be asked
ROOM_TO_LOAD = 3  # times the size of a model's files that have to be free to load it before it is asked for
MAX_ROWS = 48  # of answers that are made together: ten people and more, with the columns that most of them compare
MEMORY_SHARE = 0.5  # of the free memory, for the keys and values of answers that are made together


@dataclass(frozen=True)
class _Answering:
    """Some rows of a talk in the batch."""

    talk: Talk
    asked: Asked
    rows: Sequence[int]


@dataclass(eq=False)
class _Turn:
    """What has the model when its turn comes."""

    request: Request
    steps: Iterator[None]


class Owner:
    """Answers requests until it is closed."""

    def __init__(self) -> None:
        self.resident: Resident | None = None
        self.together: Together | None = None
        self._spoiled = False  # something failed on the resident base: nothing new begins on it
        self._loaded_at = 0  # number of the last request that had come when it was loaded
        self._waiting: list[Request] = []
        self._answering: list[_Answering] = []
        self._turns: deque[_Turn] = deque()
        self._inbox: deque[Request] = deque()
        self._wished: ModelSpec | None = None  # a base that somebody will soon ask
        self._answered_at = float("-inf")  # when somebody was answered last
        self._news = threading.Condition()
        self._count = 0
        self._closed = self._over = False
        self._thread = threading.Thread(target=self._own, daemon=True, name="model owner")
        self._thread.start()

    def ask(self, request: Request) -> bool:
        """Put a request; False: nobody is there any more."""
        with self._news:
            if self._over or self._closed:
                return False
            self._count += 1
            request.number = self._count
            self._inbox.append(request)
            self._news.notify()
            return True

    def wish(self, spec: ModelSpec) -> None:
        """Make this base resident before anybody asks it, once there is nothing to answer."""
        with self._news:
            self._wished = spec
            self._news.notify()

    def close(self) -> None:
        """Answer what was asked before, then end and release the model."""
        with self._news:
            self._closed = True
            self._news.notify()
        self._thread.join()

    # the thread

    def _own(self) -> None:
        libraries.prepare()
        failure: BaseException = RuntimeError("the thread that owns the models has ended")
        try:
            while self._take():
                self._fulfil()
                self._begin()
                self._step_together()
                self._step_turn()
        except BaseException as error:
            failure = error
            raise
        finally:
            with self._news:
                self._over = True
                left = [*self._inbox, *self._waiting, *(turn.request for turn in self._turns)]
            for request in left:
                request.fail_all(failure)
            self._fail_together(failure)
            self._forget()

    @property
    def _busy(self) -> bool:
        return bool(self._answering or self._turns)

    def _take(self) -> bool:
        """Add what has come; where there is nothing to do, wait for it. False: closed, and what came before is done."""
        with self._news:
            self._news.wait_for(
                lambda: self._inbox or self._waiting or self._busy or self._closed or self._wished is not None
            )
            if self._inbox or self._busy:
                self._answered_at = time.monotonic()
            self._waiting += self._inbox
            self._inbox.clear()
        for request in self._waiting:
            if request.is_cancelled:
                request.cancel_all()
        self._waiting = [request for request in self._waiting if not request.is_over]
        return bool(self._waiting or self._busy or not self._closed)

    # what is made ready

    def _fulfil(self) -> None:
        """Load a base that was wished for. Questions come first: where there are any, they load what they need. One
        that is still asked now and then is not taken away, and nothing is loaded that the machine has no room for."""
        if self._waiting or self._busy:
            return
        with self._news:
            spec, self._wished = self._wished, None
        if spec is None or self._has(spec) or self._closed:
            return
        if self.resident is not None and time.monotonic() - self._answered_at < KEPT_SECONDS:
            return
        try:
            if self._has_room(spec):
                self._make_resident(spec)
                assert self.resident is not None
                self.resident.prepare()
        except Exception:  # nobody has asked: who does is told why
            log.info("the base could not be made ready", exc_info=True)
            self._forget()

    @staticmethod
    def _has_room(spec: ModelSpec) -> bool:
        """Whether there is memory to load it while a training may go on."""
        libraries.load()
        from tunelab.machine.hardware import available_memory_bytes
        from tunelab.model import load as loading

        size = sum(file.stat().st_size for file in loading.find(spec).glob("*.safetensors"))
        return 0 < ROOM_TO_LOAD * size < available_memory_bytes(loading.choose_device(spec))

    # who begins

    def _begin(self) -> None:
        """Begin what can begin, in the order it came."""
        joining: list[_Answering] = []
        swap = full = False  # somebody ahead waits for another base, or for room in the batch
        for ahead, request in enumerate(list(self._waiting)):
            spec = request.questions[0].spec
            if not self._has(spec):
                swap = swap or self._busy or bool(joining)
                if swap or not self._load(request, spec):
                    self._say_swap(request, spec)
                    continue
            elif swap and request.number > self._loaded_at:  # else those who wait for another base would wait for ever
                self._say_swap(request, spec)
                continue
            try:
                full = not self._start(request, joining, full) or full
            except Exception as error:  # of this request alone
                request.fail_all(error)
            if request in self._waiting:
                request.say(self._why_full(ahead))
        self._waiting = [request for request in self._waiting if not request.is_over]
        self._join(joining)

    def _has(self, spec: ModelSpec) -> bool:
        """Whether this base is resident, and sound. 'auto' leaves its precision to whoever was first; a branch of the
        Hub is the commit that it stands for here."""
        if self.resident is None or self._spoiled:
            return False
        known = self.resident.base.spec
        if "auto" in (spec.dtype, known.dtype):
            actual = str(self.resident.base.dtype).removeprefix("torch.")
            spec, known = (
                one.model_copy(update={"dtype": actual}) if one.dtype == "auto" else one for one in (spec, known)
            )
        if commit := self.resident.base.revision:
            from tunelab.model.hub import cached_commit

            known = known.model_copy(update={"revision": commit})
            spec = spec.model_copy(update={"revision": cached_commit(spec) or spec.revision})
        return not base_differences(known, spec)

    def _load(self, request: Request, spec: ModelSpec) -> bool:
        """Make a base resident, in place of the one before, with word of it."""
        before = self.resident.base if self.resident else None
        swapping = f", in place of {before.spec.repo_id} ({before.precision})" if before else ""
        request.say(f"loading {spec.repo_id}{swapping} …")
        try:
            self._make_resident(spec)
        except BaseException as error:
            request.fail_all(error)
            self._waiting.remove(request)
            return False
        with self._news:
            self._loaded_at = self._count
        return True

    def _make_resident(self, spec: ModelSpec) -> None:
        libraries.load()  # the first one imports torch
        from tunelab.answer.decoders import Resident
        from tunelab.model import load as loading

        self._forget()  # release the old one before the new one is loaded
        self.resident = Resident(loading.load(spec))

    def _start(self, request: Request, joining: list[_Answering], full: bool) -> bool:
        """Begin a request on the resident base: its rows join those of the batch, or wait for their turn. False: there
        is no room for them yet."""
        from tunelab.answer.turns import Part, in_turns, result_of

        resident = self.resident
        assert resident is not None
        if request.is_cancelled:
            request.cancel_all()
        elif not request.growing:
            self._check_bases(request)
            self._turns.append(_Turn(request, self._set_of_prompts(request)))
        elif not self._can_join(request, joining, full):
            return False
        else:
            self._check_bases(request)
            talk = request.prepared = self._prepared(request)
            batch, rest = resident.split([result_of(talk, row) for row in range(len(talk.rows))])
            if batch and not self._add(talk, batch, joining):
                return False
            if rest:
                self._turns.append(_Turn(request, in_turns(resident, [Part(talk, rest)])))
                if len(self._turns) > 1:
                    before = counted(len(self._turns) - 1, "question")
                    talk.waits(f"waiting for {before} that can't share a batch with it …")
        self._waiting.remove(request)
        return True

    def _can_join(self, request: Request, joining: Sequence[_Answering], full: bool) -> bool:
        """Whether there are rows in the batch for what of a question can share it. What can't waits for its turn
        elsewhere."""
        question, resident = request.questions[0], self.resident
        assert resident is not None
        if question.runs and not any(run.config.technique.rows_can_differ for run in question.runs):
            return True
        if full or (self._turns and not resident.knows_llama):  # to find out would take away what is attached
            return False
        taken = (self.together.rows if self.together else 0) + sum(len(one.rows) for one in joining)
        return not taken or taken + len(question.columns) * len(question.seeds) <= MAX_ROWS

    def _add(self, talk: Talk, rows: Sequence[int], joining: list[_Answering]) -> bool:
        """Let rows of a talk join the batch; False: their answers would not fit into memory beside the others."""
        from tunelab.answer.together import Asked, Together
        from tunelab.answer.turns import result_of
        from tunelab.machine.hardware import available_memory_bytes

        resident = self.resident
        assert resident is not None
        if self.together is None:
            self.together = Together(resident.llama())
        results = [result_of(talk, row) for row in rows]
        asked = Asked(
            [talk.rows[row].prompt for row in rows],
            [None if result is None else resident.factors(result) for result in results],
            talk.longest,
            talk.end_ids,
            tell=partial(talk.hear, rows),
            is_cancelled=talk.is_cancelled,
            temperature=talk.question.temperature,
            seeds=[talk.rows[row].seed for row in rows],
        )
        others = [one.asked for one in joining]
        if others or self.together.asked:
            free = MEMORY_SHARE * available_memory_bytes(resident.base.device) + self.together.bytes_now()
            if self.together.bytes_with([*others, asked]) > free:
                return False
        joining.append(_Answering(talk, asked, rows))
        return True

    def _prepared(self, request: Request) -> Talk:
        """The talk of a question; encoded once, also where it has to wait for room."""
        talk = request.prepared
        assert self.resident is not None
        return talk if talk is not None and talk.base is self.resident.base else self._talk(request, 0)

    def _talk(self, request: Request, place: int) -> Talk:
        from tunelab.answer.talk import Talk

        assert self.resident is not None
        if problem := request.questions[place].problem:
            raise UserError(problem)
        tell, failed = partial(request.tell, place), partial(request.fail, place)
        return Talk(request.questions[place], self.resident.base, tell, failed)

    def _check_bases(self, request: Request) -> None:
        """Refuse runs of other weights than those that are resident, and what was deleted since it was asked."""
        assert self.resident is not None
        runs: dict[str, Run] = {run.id: run for question in request.questions for run in question.runs}
        for run in runs.values():
            run.check_result()
            run.check_base(self.resident.base.spec.repo_id, self.resident.base.sha256)

    def _say_swap(self, request: Request, spec: ModelSpec) -> None:
        if self.resident is not None and not request.is_over:
            who = self.resident.base.spec.repo_id
            request.say(f"waiting: {who} answers others first, then {spec.repo_id} is loaded …")

    def _why_full(self, ahead: int) -> str:
        rows = self.together.rows if self.together else 0
        before = f" and {ahead} questions wait before yours" if ahead else ""
        return f"waiting: {rows} answers are being written{before}; yours begin as soon as there is room …"

    # who gets a token

    def _join(self, joining: list[_Answering]) -> None:
        if joining:
            assert self.together is not None
            self._answering += joining
            self._guarded(lambda together: together.join([one.asked for one in joining]))

    def _step_together(self) -> None:
        if self._answering:
            self._guarded(lambda together: together.step())

    def _guarded(self, work: Callable[[Together], None]) -> None:
        """Do something for all who are answered together, and let go who is done."""
        try:
            assert self.together is not None
            work(self.together)
        except Exception as error:  # whatever state it is in, do not answer from it again
            self._fail_together(error)
            self.together, self._spoiled = None, True
        for one in self._answering:
            if one.asked.error is not None:
                one.talk.fail(one.asked.error)
            elif not one.asked.going:
                one.talk.end(one.rows)
        self._answering = [one for one in self._answering if one.asked.going]

    def _step_turn(self) -> None:
        """A token for whoever's turn it is."""
        if not self._turns:
            return
        turn = self._turns[0]
        try:
            next(turn.steps)
        except StopIteration:
            self._turns.popleft()
        except Exception as error:
            self._turns.popleft()
            turn.request.fail_all(error)
            self._spoiled = True
            assert self.resident is not None
            with contextlib.suppress(Exception):  # it is spoiled, and loaded again when nobody uses it
                self.resident.detach()

    def _set_of_prompts(self, request: Request) -> Iterator[None]:
        """Answers to a set of prompts, as many at once as memory allows."""
        from tunelab.answer.turns import Part, in_turns

        assert self.resident is not None
        talks: list[Talk] = []
        for place in range(len(request.questions)):
            try:
                talks.append(self._talk(request, place))
            except Exception as error:  # of this prompt alone
                request.fail(place, error)
        while talks:
            count = self._affordable(talks)
            yield from in_turns(self.resident, [Part(talk, range(len(talk.rows))) for talk in talks[:count]])
            talks = talks[count:]

    def _affordable(self, talks: Sequence[Talk]) -> int:
        """How many of these can be answered at once."""
        from tunelab.machine.hardware import available_memory_bytes

        assert self.resident is not None
        each = max(len(row.prompt) + talk.longest for talk in talks for row in talk.rows)
        taken = each * len(talks[0].rows) * self.resident.bytes_of_token
        return max(1, int(MEMORY_SHARE * available_memory_bytes(self.resident.base.device) / taken))

    def _fail_together(self, error: BaseException) -> None:
        for one in self._answering:
            one.talk.fail(error)
        self._answering = []

    def _forget(self) -> None:
        self.resident = self.together = None
        self._spoiled = False
