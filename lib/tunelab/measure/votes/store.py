"""Ballots and votes on disk: one SQLite file beside the runs.

Every call opens the file and closes it again, so that threads and processes share nothing but the file. Its journal is
a write-ahead log: who reads never waits for who writes. The file must stand on a local disk, as runs do.
"""

from __future__ import annotations

import json
import random
import re
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import filelock

from tunelab.errors import UserError, listed, shortened
from tunelab.measure.votes.ballot import REASONS, Ballot, Choice, Shown, Vote, counted
from tunelab.run.run import runs_root

FILE = "votes.sqlite"
FORMAT = 1
STEP = re.compile(r"@(stage)?\d+$")  # behind a run's id: its result as it was then
PATIENCE_SECONDS = 30.0  # how long a write waits for others
SCHEMA = """
CREATE TABLE ballots (id TEXT PRIMARY KEY, content TEXT NOT NULL, time_unix_seconds REAL NOT NULL);
CREATE TABLE showings (
    token TEXT PRIMARY KEY, ballot TEXT NOT NULL REFERENCES ballots, voter TEXT NOT NULL, places TEXT NOT NULL
);
CREATE TABLE votes (
    ballot TEXT NOT NULL REFERENCES ballots, voter TEXT NOT NULL, choice TEXT NOT NULL, winner INTEGER, reason TEXT,
    places TEXT NOT NULL, time_unix_seconds REAL NOT NULL, PRIMARY KEY (ballot, voter)
);
"""


def new_voter() -> str:
    """A voter's id: random, and nothing of the person in it."""
    return secrets.token_hex(8)


class VoteStore:
    """The ballots and votes of one runs root. Cheap to make; safe to use from several threads and processes."""

    def __init__(self, root: str | Path | None = None, randomness: random.Random | None = None) -> None:
        """`randomness` shuffles the sides; None: the system's."""
        self.root = runs_root(root)
        self.path = self.root / FILE
        self._randomness = randomness or random.SystemRandom()

    def __repr__(self) -> str:
        return f"VoteStore({str(self.path)!r})"

    def add(self, ballot: Ballot) -> str:
        """The id of the ballot, which is kept; one that is there already stays as it is.

        Raises:
            UserError: a run that it names does not stand in the runs root.
        """
        if missing := self._deleted(ballot):
            raise UserError(
                f"The ballot on {shortened(ballot.prompt, 50)} names {listed(missing, 3)}, and no such run is in "
                f"{self.root}. Compare runs that are there, or give the directory of the runs: VoteStore(root)."
            )
        with self._writing() as database:
            database.execute(
                "INSERT OR IGNORE INTO ballots VALUES (?, ?, ?)", (ballot.id, ballot.as_json(), time.time())
            )
        return ballot.id

    def ballots(self) -> list[Ballot]:
        """Every ballot, in the order they came."""
        if not self.path.is_file():
            return []
        with self._reading() as database:
            found = database.execute("SELECT content FROM ballots ORDER BY time_unix_seconds, id").fetchall()
        return [Ballot.from_json(content) for (content,) in found]

    def next_for(self, voter: str) -> Ballot | None:
        """A ballot this voter has not voted on: of those with the fewest votes, any; None where there is none left.
        Ballots of deleted runs are passed over."""
        with self._reading() as database:
            found = database.execute(
                "SELECT content, (SELECT count(*) FROM votes WHERE ballot = ballots.id) FROM ballots WHERE id NOT IN "
                "(SELECT ballot FROM votes WHERE voter = ?)",
                (voter,),
            ).fetchall()
        self._randomness.shuffle(found)
        for content, _count in sorted(found, key=lambda row: row[1]):
            ballot = Ballot.from_json(content)
            if not self._deleted(ballot):
                return ballot
        return None

    def show(self, ballot_id: str, voter: str) -> Shown:
        """The ballot as this voter sees it now: its answers in a new random order, which is kept.

        Raises:
            UserError: there is no such ballot, a run that gave one of its answers was deleted, or the voter's id is
                empty.
        """
        if not voter.strip():
            raise UserError("voter is empty. Give each voter a random id of their own: new_voter() makes one.")
        with self._reading() as database:
            ballot = _ballot(database, ballot_id)
        self._check_runs(ballot)
        order = list(range(len(ballot.columns)))
        self._randomness.shuffle(order)
        token = secrets.token_hex(12)
        with self._writing() as database:
            database.execute("INSERT INTO showings VALUES (?, ?, ?, ?)", (token, ballot_id, voter, json.dumps(order)))
        return Shown(token, ballot.prompt, tuple(ballot.columns[place].text for place in order), ballot.system)

    def vote(self, token: str, choice: str, reason: str | None = None) -> Vote:
        """The vote, which is kept: `choice` is the letter of the better answer as it was shown, "tie" or "skip". An
        earlier vote of this voter on this ballot is replaced.

        Raises:
            UserError: the showing, the choice or the reason is unknown, or a run that gave one of the answers was
                deleted. What was kept before stays as it is.
        """
        with self._reading() as database:
            found = database.execute("SELECT ballot, voter, places FROM showings WHERE token = ?", (token,)).fetchone()
            if not found:
                raise UserError(f"Nothing was shown as {shortened(token)}. Show the ballot again, then vote.")
            ballot_id, voter, places = found
            ballot = _ballot(database, ballot_id)
        order = tuple(json.loads(places))
        kind, winner = _chosen(choice, order)
        _check_reason(kind, reason)
        self._check_runs(ballot)
        now = time.time()
        with self._writing() as database:
            database.execute(
                "INSERT OR REPLACE INTO votes VALUES (?, ?, ?, ?, ?, ?, ?)",
                (ballot_id, voter, kind, winner, reason, places, now),
            )
        column = None if winner is None else ballot.columns[winner]
        return Vote(ballot, voter, kind, column, reason, order, now)

    def votes(self) -> list[Vote]:
        """Every vote, in the order they were cast; also those on runs that have been deleted since."""
        if not self.path.is_file():
            return []
        with self._reading() as database:
            contents = dict(database.execute("SELECT id, content FROM ballots"))
            found = database.execute(
                "SELECT ballot, voter, choice, winner, reason, places, time_unix_seconds FROM votes "
                "ORDER BY time_unix_seconds, rowid"
            ).fetchall()
        ballots = {name: Ballot.from_json(content) for name, content in contents.items()}
        return [
            Vote(
                ballots[ballot],
                voter,
                choice,
                None if winner is None else ballots[ballot].columns[winner],
                reason,
                tuple(json.loads(places)),
                when,
            )
            for ballot, voter, choice, winner, reason, places, when in found
        ]

    # the file

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._in_words(), closing(self._connect()) as database:
            database.execute("BEGIN")  # one state of the file for everything that is read
            yield database

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._in_words(), closing(self._connect()) as database:
            database.execute("BEGIN IMMEDIATE")  # waits for its turn here, not in the middle
            yield database
            database.execute("COMMIT")

    def _connect(self) -> sqlite3.Connection:
        if not self.path.is_file():
            self._make()
        database = sqlite3.connect(self.path, timeout=PATIENCE_SECONDS, isolation_level=None)
        try:
            database.execute("PRAGMA foreign_keys = ON")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version != FORMAT:
                raise UserError(
                    f"{self.path} has format {version}; this version of tunelab reads format {FORMAT}. Open it with "
                    "the version that wrote it, or move the file away to begin anew."
                )
        except BaseException:
            database.close()
            raise
        return database

    def _make(self) -> None:
        """The empty file, whole or not there: it gets its name when its tables stand."""
        self.root.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(self.root / f".{FILE}.lock"):
            if self.path.is_file():
                return
            new = self.root / f".{FILE}.new"
            new.unlink(missing_ok=True)
            with closing(sqlite3.connect(new, isolation_level=None)) as database:
                database.execute("PRAGMA journal_mode = WAL")  # stays with the file
                database.executescript(SCHEMA)
                database.execute(f"PRAGMA user_version = {FORMAT}")
            new.rename(self.path)

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise UserError(
                f"The votes in {self.path} can't be read or written: {error}. What was kept before stays as it is. See "
                "that the disk has room, that the file may be written, and that it is a file of votes; then try again."
            ) from error

    # runs

    def _deleted(self, ballot: Ballot) -> list[str]:
        """The runs of a ballot that are not there."""
        ids = [column.run_id for column in ballot.columns if column.run_id]
        return [
            name
            for name in ids
            if not any((self.root / run / "config.json").is_file() for run in (name, STEP.sub("", name)))
        ]

    def _check_runs(self, ballot: Ballot) -> None:
        if deleted := self._deleted(ballot):
            several = len(deleted) > 1
            raise UserError(
                f"Run{'s' if several else ''} {listed(deleted, 3)} {'were' if several else 'was'} deleted, so nobody "
                f"votes on {'their' if several else 'its'} answer to {shortened(ballot.prompt, 50)} any more. Nothing "
                f"was lost: {counted(self._votes_on(ballot.id), 'earlier vote')} on it still count. Go on with the "
                "next ballot."
            )

    def _votes_on(self, ballot_id: str) -> int:
        with self._reading() as database:
            return int(database.execute("SELECT count(*) FROM votes WHERE ballot = ?", (ballot_id,)).fetchone()[0])


def _ballot(database: sqlite3.Connection, ballot_id: str) -> Ballot:
    found = database.execute("SELECT content FROM ballots WHERE id = ?", (ballot_id,)).fetchone()
    if not found:
        raise UserError(f"There is no ballot {shortened(ballot_id)}. Add it first: store.add(ballot) gives its id.")
    return Ballot.from_json(found[0])


def _chosen(choice: str, order: tuple[int, ...]) -> tuple[Choice, int | None]:
    """The kind of a choice, and the place of the column that won."""
    without: dict[str, Choice] = {"tie": "tie", "skip": "skip"}
    if choice in without:
        return without[choice], None
    letters = [chr(ord("A") + place) for place in range(len(order))]
    if choice not in letters:
        raise UserError(f"choice = {shortened(choice)}: allowed are {', '.join(letters)}, tie and skip.")
    return "winner", order[letters.index(choice)]


def _check_reason(kind: Choice, reason: str | None) -> None:
    if reason is not None and reason not in REASONS[kind]:
        what = {"winner": "a better answer", "tie": "a tie", "skip": "a skipped ballot"}[kind]
        raise UserError(f"reason = {shortened(reason)}: for {what} allowed are {', '.join(REASONS[kind])}, or none.")
