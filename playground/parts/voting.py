"""Blind votes: two answers whose sides are shuffled, a vote by a button or a key, and what the votes say so far."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground import views
from playground.door import SESSION
from playground.english import compare as say
from playground.errors import shown
from playground.material import Material
from playground.parts.asking import Said
from playground.parts.events import PRIVATE, QUIET, shown_if
from playground.parts.files import new_folder
from playground.parts.shared import Shared
from playground.views import plain_markdown
from tunelab import Ballot, Comparison, DataSpec, UserError, VoteStore, ballot_of, export_votes, votes_to_rows, win_rate
from tunelab.measure.votes import REASONS, Shown, Vote, WinRate, new_voter

LETTERS = 4  # answers that have a button
MOST_RATES = 4


@dataclass(frozen=True)
class _Last:
    """The vote that was given last, to which a reason can be added."""

    token: str
    choice: str


@dataclass(frozen=True)
class _Booth:
    put: gr.Button
    put_set: gr.Button
    begin: gr.Button
    message: gr.Markdown
    ballot: gr.HTML
    letters: list[gr.Button]
    tie: gr.Button
    skip: gr.Button
    reason: gr.Radio
    rates: gr.HTML
    export: gr.Button
    hand: gr.Button
    files: gr.File
    showing: gr.State  # a `Shown`, or None
    last: gr.State  # a `_Last`, or None
    voter: gr.State  # of a browser that keeps no cookie

    @property
    def outputs(self) -> list[Any]:
        """What a new ballot fills in."""
        buttons = [*self.letters, self.tie, self.skip]
        return [self.message, self.ballot, *buttons, self.reason, self.rates, self.showing, self.last, self.voter]


def build(shared: Shared, said: gr.State, answered: gr.State) -> None:
    """The booth: `said` and `answered` are what can be put to the vote."""
    booth = _lay_out()
    store = VoteStore(shared.jobs.root)
    _put(store, booth, said, answered)
    _vote(store, booth)
    _take_along(store, shared, booth)


def _lay_out() -> _Booth:
    gr.HTML(f'<p class="muted">{say.VOTE_WORDS}</p>')
    with gr.Row(elem_classes="tight"):
        put = gr.Button(say.PUT, elem_id="put-answers", size="sm", min_width=200)
        put_set = gr.Button(say.PUT_SET, elem_id="put-set", size="sm", min_width=200)
        begin = gr.Button(say.VOTE_NEXT, elem_id="vote-next", variant="primary", size="sm", min_width=120)
    message = gr.Markdown("", elem_id="vote-message", elem_classes="message")
    ballot = gr.HTML("", elem_id="ballot", elem_classes="ballot")
    with gr.Row(elem_id="vote-buttons", elem_classes="tight"):
        letters = [
            gr.Button("", visible="hidden", elem_id=f"vote-{number + 1}", min_width=140) for number in range(LETTERS)
        ]
        tie = gr.Button("", visible="hidden", elem_id="vote-tie", min_width=100)
        skip = gr.Button(say.VOTE_SKIP, visible="hidden", elem_id="vote-skip", min_width=80)
    reason = gr.Radio([], label=say.REASON, info=say.REASON_HELP, visible="hidden", elem_id="reason")
    rates = gr.HTML("", elem_id="rates", elem_classes="rates")
    with gr.Row(elem_classes="tight"):
        export = gr.Button(say.VOTE_FILES, size="sm", elem_id="vote-files", min_width=200)
        hand = gr.Button(say.VOTE_HAND, size="sm", elem_id="vote-hand", min_width=200)
    files = gr.File(
        label=say.VOTE_FILES_HELP, file_count="multiple", interactive=False, visible="hidden", height=180,
        elem_id="votes-made",
    )  # fmt: skip
    states = gr.State(None), gr.State(None), gr.State(None)
    return _Booth(put, put_set, begin, message, ballot, letters, tie, skip, reason, rates, export, hand, files, *states)


def ballots_of(comparison: Comparison) -> list[Ballot]:
    """Ballots of two: the first column's answer against that of each other one, by the first seed."""
    one = comparison.of_seed(comparison.seeds[0])
    whole = ballot_of(one)
    return [Ballot(whole.prompt, (whole.columns[0], other), whole.system) for other in whole.columns[1:]]


def voter_of(page: gr.Request, kept: str | None) -> str:
    """The browser's session as a voter: a digest, so that nobody can take the session from an export."""
    session = dict(page.cookies).get(SESSION)
    return hashlib.sha256(f"voter {session}".encode()).hexdigest()[:16] if session else kept or new_voter()


def _put(store: VoteStore, booth: _Booth, said: gr.State, answered: gr.State) -> None:
    def put(page: gr.Request, comparisons: Sequence[Comparison], voter: str | None) -> dict[Any, Any]:
        ballots = [ballot for one in comparisons if len(one.by_column) > 1 for ballot in ballots_of(one)]
        if not ballots:
            raise UserError(say.NO_TALK if not comparisons else say.VOTE_ONE_COLUMN)
        for ballot in ballots:
            store.add(ballot)
        count = f"{len(ballots)} {'ballot is' if len(ballots) == 1 else 'ballots are'}"
        return _next(store, booth, voter_of(page, voter), say.PUT_DONE.format(count=count))

    @shown(booth.message)
    def put_answers(page: gr.Request, now: Said | None, voter: str | None) -> dict[Any, Any]:
        return put(page, [now.comparison] if now else [], voter)

    @shown(booth.message)
    def put_set(page: gr.Request, done: Sequence[Comparison], voter: str | None) -> dict[Any, Any]:
        return put(page, [one for one in done if one.answers], voter)

    booth.put.click(put_answers, [said, booth.voter], booth.outputs, **PRIVATE)
    booth.put_set.click(put_set, [answered, booth.voter], booth.outputs, **PRIVATE)


def _vote(store: VoteStore, booth: _Booth) -> None:
    def begin(page: gr.Request, voter: str | None) -> dict[Any, Any]:
        return _next(store, booth, voter_of(page, voter), "")

    def voted(choice: str, page: gr.Request, now: Shown | None, voter: str | None) -> dict[Any, Any]:
        if now is None:
            return _next(store, booth, voter_of(page, voter), "")
        vote = store.vote(now.token, choice)
        reasons = gr.update(choices=list(REASONS[vote.choice]), value=None, visible=True)
        said = _next(store, booth, voter_of(page, voter), say.VOTED[vote.choice])
        return said | {booth.reason: reasons, booth.last: _Last(now.token, choice)}

    @shown(booth.message)
    def why(last: _Last | None, reason: str | None) -> dict[Any, Any]:
        if last and reason:
            store.vote(last.token, last.choice, reason)
        return {booth.message: say.REASON_KEPT}

    letters = "ABCDEFGH"[:LETTERS]
    for button, choice in zip([*booth.letters, booth.tie, booth.skip], [*letters, "tie", "skip"], strict=True):

        @shown(booth.message)
        def press(page: gr.Request, now: Shown | None, voter: str | None, choice: str = choice) -> dict[Any, Any]:
            return voted(choice, page, now, voter)

        button.click(press, [booth.showing, booth.voter], booth.outputs, **QUIET)
    booth.begin.click(shown(booth.message)(begin), booth.voter, booth.outputs, **QUIET)
    booth.reason.input(why, [booth.last, booth.reason], booth.message, **QUIET)


def _next(store: VoteStore, booth: _Booth, voter: str, said: str) -> dict[Any, Any]:
    """The next ballot for this voter, and what the votes say."""
    ballot = store.next_for(voter)
    now = store.show(ballot.id, voter) if ballot else None
    answers = len(now.answers) if now else 0
    buttons: dict[Any, Any] = {
        button: gr.update(
            visible=shown_if(number < answers),
            value=say.VOTE_LETTER.format(letter="ABCDEFGH"[number], key=number + 1),
        )
        for number, button in enumerate(booth.letters)
    }
    return {
        **buttons,
        booth.tie: gr.update(visible=shown_if(now), value=say.VOTE_TIE.format(key=min(answers, LETTERS) + 1)),
        booth.skip: gr.update(visible=shown_if(now)),
        booth.message: said,
        booth.ballot: views.ballot_html(now, say.VOTE_NONE),
        booth.reason: gr.update(visible="hidden"),
        booth.rates: views.rates_html(rates_of(store.votes())),
        booth.showing: now,
        booth.last: None,
        booth.voter: voter,
    }


def rates_of(votes: Sequence[Vote]) -> list[WinRate]:
    """How often each column that was voted on wins over the first one of its ballots, the most voted on first; two
    columns that stood in either order are one pair."""
    counts: dict[tuple[str, str], int] = {}
    for vote in votes:
        first, *others = [column.key for column in vote.ballot.columns]
        for other in others:
            pair = (other, first) if (other, first) in counts else (first, other)
            counts[pair] = counts.get(pair, 0) + 1
    pairs = sorted(counts, key=lambda pair: -counts[pair])[:MOST_RATES]
    return [win_rate(votes, other, first) for first, other in pairs]


def _take_along(store: VoteStore, shared: Shared, booth: _Booth) -> None:
    @shown(booth.message)
    def export() -> dict[Any, Any]:
        made = [str(path) for path in vote_files(store.votes())]
        return {booth.files: gr.update(value=made, visible=True), booth.message: ""}

    @shown(booth.message)
    def hand() -> dict[Any, Any]:
        made = votes_to_rows(store.votes())
        if not made.rows:
            raise UserError(say.VOTE_NO_ROWS)
        material = Material(DataSpec(rows=made.rows, heldout=0.2), summary=made.sentence)
        return {
            shared.material: material,
            booth.message: plain_markdown(say.VOTE_HANDED.format(sentence=made.sentence)),
        }

    booth.export.click(export, None, [booth.files, booth.message], **PRIVATE)
    booth.hand.click(hand, None, [shared.material, booth.message], **PRIVATE)


def vote_files(votes: Sequence[Vote]) -> list[Any]:
    """The votes as a table, and what can be learned from them.

    Raises:
        UserError: there are none.
    """
    if not votes:
        raise UserError(say.VOTE_NO_ROWS)
    folder, made = new_folder(), votes_to_rows(votes)
    paths = [folder / "votes.csv"]
    export_votes(votes, paths[0])
    for name, rows in (("rows.jsonl", made.rows), ("pairs.jsonl", made.pairs)):
        if rows:
            text = "".join(f"{json.dumps(row, ensure_ascii=True)}\n" for row in rows)
            (folder / name).write_text(text, encoding="utf-8")
            paths.append(folder / name)
    return paths
