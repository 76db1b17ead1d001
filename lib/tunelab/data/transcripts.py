"""Conversations written down as one text: `Human: … Assistant: …`, `USER: … ASSISTANT: …`, `### Human: …`.

Each has one dialect: two labels, spelled as they are first, at the beginnings of lines (behind a blank line, where they
begin so). Other words with a colon are part of what is said: an answer may hold a play. What a whole conversation says
before the first label is its system text, as Vicuna's and Alpaca's prompts have one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tunelab.data.marked import begins_marked, marked_turns

ASKERS = ("human", "user", "prompter")
ANSWERERS = ("assistant", "ai", "bot", "gpt", "chatgpt", "chatbot", "model")
RESULTS = ("function response", "tool response")
LABEL = re.compile(r"(?P<gap>\A\s*|(?:\n[^\S\n]*){1,4}|(?=###))(?P<mark>#{2,3} ?)?(?P<who>[A-Za-z][A-Za-z ]{1,20}):")
# labels that speak in turn, wherever they stand: Vicuna's, all in one line, and Alpaca's headings
IN_TURN = (re.compile(r"(?:\A|\s|</s>)\s*(USER|ASSISTANT):"), re.compile(r"(?:\A|\n)\s*### (Instruction|Response):"))
INPUT = re.compile(r"\n\s*### Input:\s*")  # goes on with what is asked
END = re.compile(r"\s*(?:<\|endoftext\|>|<\|im_end\|>|<\|eot_id\|>|</s>)\s*\Z")  # what other models' turns end with


@dataclass(frozen=True)
class _Place:
    """Where somebody is named."""

    who: str
    lines: int  # newlines before it
    start: int
    end: int
    marked: bool

    @property
    def key(self) -> str:
        return self.who.lower()


def begins_like_one(text: str) -> bool:
    """Whether a text begins as a transcript does, or with the marker of a template's turn."""
    if begins_marked(text):
        return True
    first = LABEL.match(text)
    return first is not None and first["who"].lower() in (*ASKERS, *ANSWERERS, "system")


def transcript_turns(text: str) -> list[dict[str, str]] | None:
    """The turns of a transcript, as roles and contents; None where the text is none."""
    places = list(_places(text))
    if not places or places[0].start > 0:
        return None
    turns = _turns(places)
    if not any(place.key in ASKERS for place in turns):
        return None
    ends = [place.start for place in turns[1:]] + [len(text)]
    return [
        {"role": _role(place), "content": END.sub("", text[place.end : end].strip()).strip()}
        for place, end in zip(turns, ends, strict=True)
    ]


def conversation_turns(text: str) -> list[dict[str, str]] | None:
    """The turns of a text that is a conversation as a whole, in which a system text may stand first without a label;
    None where it is none."""
    if (marked := marked_turns(text)) is not None:
        return marked
    turns = transcript_turns(text)
    if turns and any(turn["role"] == "assistant" for turn in turns):
        return turns
    return _labels_in_turn(text) or _after_preface(text) or turns


def preface_of(text: str) -> str:
    """The system text without a label with which a conversation begins; empty where the text is none, or has none."""
    if begins_like_one(text):
        return ""
    first, *more = conversation_turns(text) or [{"role": ""}]
    return first["content"] if first["role"] == "system" and more else ""


def _labels_in_turn(text: str) -> list[dict[str, str]] | None:
    for labels in IN_TURN:
        before, *parts = labels.split(text)
        asks, said = parts[::2], parts[1::2]
        spoken = [who.lower() in ("user", "instruction") for who in asks]
        if len(spoken) < 2 or spoken != [place % 2 == 0 for place in range(len(spoken))]:
            continue
        turns = [
            {"role": "user" if asked else "assistant", "content": END.sub("", INPUT.sub("\n\n", words)).strip()}
            for asked, words in zip(spoken, said, strict=True)
        ]
        return _with_preface(before, turns)
    return None


def _after_preface(text: str) -> list[dict[str, str]] | None:
    first = next((place for place in _places(text) if place.key in ASKERS), None)
    turns = transcript_turns(text[first.start :].lstrip()) if first and first.start else None
    if first is None or not turns or not any(turn["role"] == "assistant" for turn in turns):
        return None
    return _with_preface(text[: first.start], turns)


def _with_preface(before: str, turns: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{"role": "system", "content": before.strip()}, *turns] if before.strip() else turns


def question_turns(text: str) -> list[dict[str, str]] | None:
    """The turns of a transcript that waits for an answer, which stands elsewhere: it ends with `Assistant:`, or is one
    of Anthropic's, which begin with `Human:`. None where the text is none."""
    turns = transcript_turns(text) or []
    if turns and turns[-1]["role"] == "assistant" and not turns[-1]["content"]:
        turns.pop()
    elif not re.match(r"\n\nHuman:" if len(turns) < 2 else r"\s*Human:", text):
        return None
    return turns if turns and turns[-1]["role"] in ("user", "tool") else None


def without_label(text: str) -> str:
    """A system text without the word that says so."""
    return re.sub(r"\A\s*(?:SYSTEM|System):\s*", "", text)


def _places(text: str) -> Iterator[_Place]:
    for match in LABEL.finditer(text):
        key = match["who"].lower()
        if key in (*ASKERS, *ANSWERERS, *RESULTS) or (key == "system" and match.start() == 0):
            yield _Place(match["who"], match["gap"].count("\n"), match.start(), match.end(), bool(match["mark"]))


def _turns(places: list[_Place]) -> list[_Place]:
    """The places at which somebody begins to speak, in the dialect of the first ones."""
    first, places = places[0], [place for place in places if place.marked == places[0].marked]
    asks = next((place.who for place in places if place.key in ASKERS), "")
    answers = _answerer(places, asks)
    gap = next((place.lines for place in places[1:] if place.who == answers), 0)
    again = next((place.lines for place in places[1:] if place.who == asks), 0)
    needed = {answers: gap, asks: max(again, gap) if first.key != "system" else again}
    needed |= {place.who: gap for place in places if place.key in RESULTS and place.who.isupper() == asks.isupper()}
    return [first] + [place for place in places[1:] if place.who in needed and place.lines >= min(2, needed[place.who])]


def _answerer(places: list[_Place], asks: str) -> str:
    """Who answers: the assistant of a human, else whoever is named first."""
    answering = [place.who for place in places if place.key in ANSWERERS]
    if asks.lower() == "human":
        answering.sort(key=lambda who: who.lower() != "assistant")
    return answering[0] if answering else ""


def _role(place: _Place) -> str:
    if place.key == "system":
        return "system"
    return "user" if place.key in ASKERS else "assistant" if place.key in ANSWERERS else "tool"
