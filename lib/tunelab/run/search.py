"""Runs that fit what somebody types: `search_runs(runs, "tickets tag:good status:failed")`.

Each word must be found in what a run is called or made of: name, id, tags, note, method, data, model, status. A word
such as `tag:good` is looked for in that place alone; `tag:"two words"` has blanks in it. A tag and a status are whole,
anything else is found in a part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tunelab.run.public import name_of
from tunelab.run.run import Run

WHOLE = ("tag", "status", "id")  # are compared as they are
PLACES = ("name", "id", "tag", "note", "method", "data", "model", "status")
_WORD = re.compile(r'(?:(\w+):)?(?:"([^"]*)"?|(\S+))')


def search_runs(runs: Iterable[Run], text: str) -> list[Run]:
    """The runs that fit every word of `text`, in the order given; all of them where there is no word."""
    words = _words(text)
    return [run for run in runs if _fits(run, words)] if words else list(runs)


def _words(text: str) -> list[tuple[str, str]]:
    """Place and word of each that is looked for; no place: anywhere."""
    found = []
    for match in _WORD.finditer(text.casefold()):
        place, word = match[1] or "", match[2] if match[2] is not None else match[3]
        if place and place not in PLACES:  # such as https://…
            place, word = "", match[0]
        if not (word.endswith(":") and word[:-1] in PLACES):  # of a word that is still being typed, such as `tag:`
            found.append((place, word))
    return [(place, word) for place, word in found if word]


def _fits(run: Run, words: list[tuple[str, str]]) -> bool:
    said = {place: [text.casefold() for text in texts] for place, texts in _said(run).items()}
    everything = "\n".join(text for texts in said.values() for text in texts)
    for place, word in words:
        if not place:
            found = word in everything
        elif place in WHOLE:
            found = word in said[place]
        else:
            found = any(word in text for text in said[place])
        if not found:
            return False
    return True


def _said(run: Run) -> dict[str, list[str]]:
    """What can be found of a run, by place."""
    labels = run.labels
    said = {"name": [run.name], "id": [run.id], "tag": list(labels.tags), "note": [labels.note]}
    said |= {"status": [run.status], "method": [], "data": [], "model": []}
    if run.readable:
        config = run.config
        said["method"] = [config.method, config.technique.kind]
        said["data"] = [name for stage in config.stages for name in (stage.data.title, stage.name or "")]
        said["model"] = [name_of(config.model.repo_id)]
    return said
