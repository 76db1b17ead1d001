"""People judge too: blind votes on answers, and what they say.

    ballot ──> VoteStore.show() ──> a person chooses ──> VoteStore.vote() ──> votes ──> win_rate(), strengths(),
                                                                                    voter_agreement(), votes_to_rows(),
                                                                                    export_votes()

`ballot` holds the types, `store` keeps them in SQLite beside the runs. Uses `run`, and numpy where it counts.
Names are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunelab.measure.votes.agreement import Agreement, voter_agreement
    from tunelab.measure.votes.ballot import REASONS, Ballot, Column, Shown, Vote, ballot_of
    from tunelab.measure.votes.bradley_terry import Strength, Strengths, strengths
    from tunelab.measure.votes.export import export_votes
    from tunelab.measure.votes.rows import VoteRows, votes_to_rows
    from tunelab.measure.votes.store import VoteStore, new_voter
    from tunelab.measure.votes.winrate import WinRate, win_rate

_HOME = {
    "agreement": ("Agreement", "voter_agreement"),
    "ballot": ("REASONS", "Ballot", "Column", "Shown", "Vote", "ballot_of"),
    "bradley_terry": ("Strength", "Strengths", "strengths"),
    "export": ("export_votes",),
    "rows": ("VoteRows", "votes_to_rows"),
    "store": ("VoteStore", "new_voter"),
    "winrate": ("WinRate", "win_rate"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "REASONS",
    "Agreement",
    "Ballot",
    "Column",
    "Shown",
    "Strength",
    "Strengths",
    "Vote",
    "VoteRows",
    "VoteStore",
    "WinRate",
    "ballot_of",
    "export_votes",
    "new_voter",
    "strengths",
    "voter_agreement",
    "votes_to_rows",
    "win_rate",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'tunelab.measure.votes' has no attribute {name!r}")
    value = getattr(import_module(f"tunelab.measure.votes.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
