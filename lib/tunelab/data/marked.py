"""Conversations written in the markers of a chat template, as files for trainers without templates hold them: ChatML,
Llama 2 and Mistral, Llama 3, Gemma, Zephyr and Phi. The markers are taken away; the model's own template sets its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# each: a turn's beginning with the name of who speaks, and what ends it
DIALECTS = (
    (re.compile(r"<\|im_start\|>[^\S\n]*(\w+)[^\S\n]*\n"), re.compile(r"<\|im_end\|>")),
    (re.compile(r"<\|start_header_id\|>\s*(\w+)\s*<\|end_header_id\|>\s*"), re.compile(r"<\|eot_id\|>|<\|eom_id\|>")),
    (re.compile(r"<start_of_turn>[^\S\n]*(\w+)[^\S\n]*\n"), re.compile(r"<end_of_turn>")),
    (re.compile(r"<\|(system|user|assistant|tool)\|>[^\S\n]*\n?"), re.compile(r"</s>|<\|end\|>|<\|endoftext\|>")),
)
BEFORE = re.compile(r"\s*(?:<s>|<bos>|<\|begin_of_text\|>|<\|endoftext\|>)?\s*")  # the first turn
LLAMA_2 = re.compile(r"\[INST\](.*?)\[/INST\](.*?)(?=(?:</s>)?\s*(?:<s>)?\s*\[INST\]|\Z)", re.DOTALL)
LLAMA_2_SYSTEM = re.compile(r"\s*<<SYS>>(.*?)<</SYS>>", re.DOTALL)
ENDS = re.compile(r"\s*(?:</s>|<\|endoftext\|>|<\|end_of_text\|>|<eos>)\s*\Z")
ROLES = {"model": "assistant", "human": "user", "ipython": "tool"}


def begins_marked(text: str) -> bool:
    """Whether a text begins with the marker of a turn."""
    at = _start(text)
    return text.startswith("[INST]", at) or any(begin.match(text, at) for begin, _end in DIALECTS)


def marked_turns(text: str) -> list[dict[str, str]] | None:
    """The turns of a text in a template's markers, as roles and contents; None where it is none. A last turn that only
    asks for an answer is left out."""
    at = _start(text)
    if text.startswith("[INST]", at):
        return list(_llama_2(text[at:]))
    for begin, end in DIALECTS:
        if begin.match(text, at):
            return list(_turns(text, begin, end))
    return None


def _start(text: str) -> int:
    found = BEFORE.match(text)
    return found.end() if found else 0


def _turns(text: str, begin: re.Pattern[str], end: re.Pattern[str]) -> Iterator[dict[str, str]]:
    places = list(begin.finditer(text))
    stops = [place.start() for place in places[1:]] + [len(text)]
    for place, stop in zip(places, stops, strict=True):
        words = ENDS.sub("", end.split(text[place.end() : stop])[0]).strip()
        if words or stop < len(text):
            yield {"role": ROLES.get(place[1].lower(), place[1].lower()), "content": words}


def _llama_2(text: str) -> Iterator[dict[str, str]]:
    for place, (asked, said) in enumerate(LLAMA_2.findall(text)):
        if place == 0 and (system := LLAMA_2_SYSTEM.match(asked)):
            yield {"role": "system", "content": system[1].strip()}
            asked = asked[system.end() :]
        yield {"role": "user", "content": asked.strip()}
        if words := ENDS.sub("", said).strip():
            yield {"role": "assistant", "content": words}
