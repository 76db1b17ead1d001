"""What programs may call (`gradio_client`): list runs, start, look at, stop and resume them, compare and measure.

    from gradio_client import Client
    client = Client("http://127.0.0.1:7860")
    started = client.predict({"model": {"repo_id": "starter"}, …}, api_name="/start")   # {"run": ID, "token": TOKEN}
    client.predict(started["run"], started["token"], api_name="/stop")

What changes a run takes the token that `/start` returned, or the server's key (it stands in `.server-key` in the folder
of runs). Errors come as one sentence. Behind a password: `Client(url, headers={"authorization": …})`, HTTP basic.
"""

# no `from __future__ import annotations`: Gradio reads the types of what is returned as they stand

import secrets
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import wraps
from inspect import isgeneratorfunction, signature
from typing import Any

import gradio as gr
from pydantic import BaseModel, ConfigDict, Field, validate_call

from playground.door import SESSION
from playground.errors import words_for
from playground.jobs import Jobs
from playground.owners import Caller
from playground.parts.asking import AT_ONCE
from playground.parts.pacing import paced
from tunelab import Column, Comparer, Comparison, Run, RunConfig, UserError, list_runs, read_report
from tunelab.measure.measurement import Measurement
from tunelab.measure.settings import Measuring


def offer(jobs: Jobs, comparer: Comparer) -> None:
    """The calls of one page; stands inside its `gr.Blocks`."""
    calls = {**_about_runs(jobs), **_changing(jobs), **_asking(jobs, comparer)}
    for name, (function, more) in calls.items():
        description = (function.__doc__ or "").strip()
        gr.api(_told(function), api_name=name, api_description=description, **more)


def _about_runs(jobs: Jobs) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    def runs() -> list[dict]:
        """Every run, the newest first."""
        return [_as_facts(run) for run in list_runs(jobs.root)]

    def run(run: str) -> dict:
        """One run: how it goes, its configuration, and its report if it was measured."""
        found = _wanted(jobs, run)
        report = read_report(found.path)
        config = found.config.model_dump(mode="json") if found.readable else None
        return {**_as_facts(found), "config": config, "report": report.as_json() if report else None}

    return {"runs": (runs, {}), "run": (run, {})}


def _changing(jobs: Jobs) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    def start(config: dict, token: str = "", request: gr.Request | None = None) -> dict:
        """Train a run of this configuration (`RunConfig` as JSON), now or when its turn comes: its id, and the token
        that changes it. A token of one's own may be given, or the server's key."""
        token = token or secrets.token_urlsafe(24)
        caller = _caller(token, request)
        return {"run": jobs.start(RunConfig.model_validate(config), caller).id, "token": token}

    def stop(run: str, token: str = "", request: gr.Request | None = None) -> dict:
        """Ask a run to stop after its step; its adapter is kept."""
        found = _wanted(jobs, run)
        jobs.stop(found, _caller(token, request))
        return _as_facts(found)

    def resume(run: str, token: str = "", request: gr.Request | None = None) -> dict:
        """Go on with a run that was stopped, paused, failed or got lost."""
        found = _wanted(jobs, run)
        jobs.resume(found, _caller(token, request))
        return _as_facts(found)

    def delete(run: str, token: str = "", request: gr.Request | None = None) -> dict:
        """Move a run out of every list; it can be restored on the page."""
        deleted = jobs.delete(_wanted(jobs, run), _caller(token, request))
        return {"run": run, "bytes": deleted.bytes}

    def measure(run: str, settings: dict | None = None, token: str = "", request: gr.Request | None = None) -> dict:
        """Have a run and its base answer held-out rows, in a process of its own; the report stands in /run when it is
        done. `settings`: rows, max_new_tokens, by (answer or likelihood), system, examples, memorisation, safety."""
        found = _wanted(jobs, run)
        jobs.measure(found, _measuring(settings or {}), (), _caller(token, request))
        return _as_facts(found)

    return {name.__name__: (name, {}) for name in (start, stop, resume, delete, measure)}


def _measuring(given: dict) -> Measuring:
    """The settings that a program gives; none of them names a file, for a metric's file would be run."""
    kinds: dict[str, Any] = {"rows": int, "max_new_tokens": int, "by": str, "system": str, "examples": int}
    kinds |= {"memorisation": bool, "safety": bool}
    for name, value in given.items():
        if not isinstance(value, kinds.get(name, ())):
            allowed = ", ".join(f"{known} ({kind.__name__})" for known, kind in kinds.items())
            raise UserError(f"settings: {str(name)[:40]} = {str(value)[:40]!r} can't be. Allowed are {allowed}.")
    settings = Measuring(**given)
    settings.check()
    return settings


def _asking(jobs: Jobs, comparer: Comparer) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    def compare(
        runs: list[str],
        prompt: str,
        system: str = "",
        max_new_tokens: int = 96,
        temperature: float = 0.0,
        seed: int = 0,
        columns: list[dict] | None = None,
        history: list | None = None,
    ) -> dict:
        """The answers of the base and of each run to one prompt, with where they come from. Or of `columns`, each
        {"run": ID or null, "system", "examples": [[prompt, answer]], "strength"}; then `history` is `continued` of the
        answer before, and the conversation goes on."""
        given = (runs, prompt, system, max_new_tokens, temperature, seed, columns, history)
        *_growing, last = asked(_Question.of(*given))
        return _as_answers(last)

    def stream(
        runs: list[str],
        prompt: str,
        system: str = "",
        max_new_tokens: int = 96,
        temperature: float = 0.0,
        seed: int = 0,
        columns: list[dict] | None = None,
        history: list | None = None,
    ) -> Iterator[dict]:
        """As /compare, while the answers grow; who cancels, or leaves, ends them."""
        given = (runs, prompt, system, max_new_tokens, temperature, seed, columns, history)
        with closing(asked(_Question.of(*given))) as growing:
            for one in paced(growing):
                yield _as_answers(one)

    def asked(question: _Question) -> Generator[Comparison, None, None]:
        decoding: dict[str, Any] = {"max_new_tokens": question.max_new_tokens, "temperature": question.temperature}
        found = [_wanted(jobs, run) for run in question.runs]
        if found and question.columns:
            raise UserError("runs and columns are given: columns name their runs themselves. Leave runs empty: [].")
        if question.history and not question.columns:
            raise UserError("history goes with columns, each of which has its own. Give columns in place of runs.")
        if question.columns:
            made = [_column(jobs, one, question.system) for one in question.columns]
            history = question.history or ()
            yield from comparer.ask(made, question.prompt, history=history, seeds=(question.seed,), **decoding)
        else:
            system, seed = question.system or None, question.seed
            yield from comparer.stream(found, question.prompt, system=system, seed=seed, **decoding)

    more = {"concurrency_limit": AT_ONCE, "concurrency_id": "answers"}
    return {"compare": (compare, more), "stream": (stream, more)}


class _Given(BaseModel):
    """A column as a program describes it."""

    model_config = ConfigDict(extra="forbid")
    run: str | None = None
    system: str | None = None
    examples: tuple[tuple[str, str], ...] = ()
    strength: float = Field(1.0, allow_inf_nan=False)


class _Question(BaseModel):
    """What a program asks."""

    runs: list[str]
    prompt: str
    system: str | None
    max_new_tokens: int
    temperature: float
    seed: int
    columns: list[_Given] | None
    history: list[tuple[tuple[str, str], ...]] | None

    @classmethod
    def of(cls, *values: Any) -> "_Question":
        """
        Raises:
            pydantic.ValidationError: a value is of another kind.
        """
        return cls.model_validate(dict(zip(cls.model_fields, values, strict=True)))


def _column(jobs: Jobs, given: _Given, system: str | None) -> Column:
    """The column that a program describes."""
    if given.run:
        _wanted(jobs, given.run.partition("@")[0])
    said = (system or None) if given.system is None else given.system
    return Column(given.run or None, said, given.examples, given.strength)


def _told(function: Callable[..., Any]) -> Callable[..., Any]:
    """A call whose failure is one sentence, never a traceback; also where it is given anything but what it says."""
    checked, named = validate_call(config={"arbitrary_types_allowed": True})(function), signature(function)

    @wraps(function)
    def guarded(*values: Any) -> Any:
        try:
            return checked(**named.bind(*values).arguments)
        except Exception as error:
            raise gr.Error(words_for(error), print_exception=False) from None

    @wraps(function)
    def growing(*values: Any) -> Iterator[Any]:
        try:
            yield from checked(**named.bind(*values).arguments)
        except Exception as error:
            raise gr.Error(words_for(error), print_exception=False) from None

    return growing if isgeneratorfunction(function) else guarded


def _wanted(jobs: Jobs, run_id: str) -> Run:
    run = jobs.find(run_id)
    if run is None:
        raise UserError(f"There is no run {str(run_id)[:80]!r}. /runs lists those that are there.")
    return run


def _caller(token: str, request: gr.Request | None) -> Caller:
    session = dict(request.cookies).get(SESSION) if request else None
    return Caller(session, token or None)


def _as_facts(run: Run) -> dict[str, Any]:
    progress = run.progress()
    standing = Measurement(run).standing()
    return {
        "run": run.id,
        "name": run.name,
        "status": progress.status,
        "message": progress.message,
        "step": progress.step,
        "steps_total": progress.steps_total,
        "heldout_loss": progress.heldout_loss,
        "base_loss": progress.base_loss,
        "has_adapter": run.has_adapter,
        "measuring": standing.state if standing else None,
    }


def _as_answers(comparison: Comparison) -> dict[str, Any]:
    answers = [
        {
            "label": answer.label,
            "text": answer.text,
            "tokens": answer.tokens,
            "stop_reason": answer.stop_reason,
            "provenance": answer.provenance.text,
        }
        for answer in comparison.answers
    ]
    continued = [list(map(list, turns)) for turns in comparison.continued] if comparison.done and answers else []
    return {
        "prompt": comparison.prompt,
        "answers": answers,
        "note": comparison.note,
        "done": comparison.done,
        "continued": continued,
    }
