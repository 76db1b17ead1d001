"""Conversations as people write them down: OpenAI's messages, ShareGPT's and their dialects, pairs, transcripts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from tunelab.data.cells import cell, list_in, written
from tunelab.data.examples import Message, Role
from tunelab.data.reading.checks import Unreadable, parse_json
from tunelab.data.reading.jsons import is_turn
from tunelab.data.transcripts import conversation_turns, question_turns
from tunelab.errors import shortened

SPEAKERS: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "question": "user",
    "customer": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "answer": "assistant",
    "agent": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "ipython": "tool",
}
SPEAKER_KEYS, WORD_KEYS = ("role", "from", "speaker", "author"), ("content", "value", "text", "message", "parts")
PAIRS = (
    ("human", "assistant"),
    ("user", "assistant"),
    ("human", "gpt"),
    ("question", "answer"),
    ("prompt", "response"),
    ("input", "output"),
)
CALLS = ("tool_calls", "function_call")
READ = frozenset((*SPEAKER_KEYS, *WORD_KEYS, *CALLS, "weight", "train", "tool_call_id", "id"))
PICTURES = ("image", "image_url", "input_image", "video", "video_url", "audio", "input_audio", "file")
# calls of tools that are written into the words, as Hermes and Qwen, and as Glaive do
MARKED_CALL = re.compile(r"<tool_call>(.*?)</tool_call>|<functioncall>(.*?)(?:<\|endoftext\|>|\Z)", re.DOTALL)
MARKED_RESULT = re.compile(r"\s*<tool_response>((?:(?!</?tool_response>).)*)</tool_response>\s*", re.DOTALL)
GLAIVES = re.compile(r"""\{\s*"name":\s*"([^"]*)",\s*"arguments":\s*'(.*)'\s*\}""", re.DOTALL)


def turns_of(value: Any, unused: set[str] | None = None) -> list[Message]:
    """The turns in a cell; keys of turns that say nothing to a chat template are added to `unused`.

    Raises:
        Unreadable: it holds none, or one of an unknown kind.
    """
    if isinstance(value, str):
        value = _from_text(value)
    if isinstance(value, dict):
        value = inner_turns(value) or [value]
    if not isinstance(value, list | tuple):
        raise Unreadable(
            f'is {shortened(value, 40)}, which is no list of turns such as {{"role": "user", "content": "…"}}'
        )
    return [message for turn in value for message in _turn(turn, unused if unused is not None else set())]


def inner_turns(value: dict[Any, Any]) -> list[Any] | None:
    """The turns in an object that holds them beside settings, as OpenAI's and Gemini's requests do; None where it holds
    none."""
    found = next((value[key] for key in ("messages", "contents") if isinstance(value.get(key), list)), None)
    return found if found and is_turn(found[0]) else None


def asked_turns(text: str) -> list[Message] | None:
    """The turns of a prompt that is a transcript and waits for its answer; None where it is a text.

    Raises:
        Unreadable: a turn in it is.
    """
    turns = question_turns(text)
    return turns_of(turns) if turns else None


def words_of(value: Any) -> str:
    """A text, or the text of the parts in which it is written; other values as people write them.

    Raises:
        Unreadable: one of the parts is no text.
    """
    if isinstance(value, dict) and isinstance(value.get("parts"), list):  # Gemini's system instruction
        value = value["parts"]
    parts = value if isinstance(value, list) else [value]
    in_parts = all(isinstance(part, dict) and {"text", "content"} & part.keys() for part in parts)
    return _words(value) if parts and in_parts else cell(value)


def history_of(value: Any) -> list[Message]:
    """Earlier turns: pairs of question and answer, turns, or texts in turn.

    Raises:
        Unreadable: it is none of them.
    """
    if isinstance(value, str):
        value = _from_text(value)
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list | tuple):
        raise Unreadable(f"holds {shortened(value, 40)}, which is no list of earlier turns")
    if all(isinstance(one, str) for one in value):
        return [Message("user" if place % 2 == 0 else "assistant", text) for place, text in enumerate(value)]
    if all(isinstance(one, list | tuple) and len(one) == 2 for one in value):
        return [
            m for asked, said in value for m in (Message("user", written(asked)), Message("assistant", written(said)))
        ]
    return turns_of(value)


def _from_text(text: str) -> Any:
    """Turns that stand in a cell as text: JSON, or a transcript."""
    if text.lstrip().startswith(("[", "{")):
        pythons = list_in(text) if re.match(r"[\s\[{]+'", text) else None  # as in tables that pandas wrote
        return parse_json(text) if pythons is None else pythons
    turns = conversation_turns(text)
    if turns is None:
        raise Unreadable(f"is {shortened(text, 40)}, which is no list of turns")
    return turns


def _turn(turn: Any, unused: set[str]) -> Iterator[Message]:
    if not isinstance(turn, dict):
        raise Unreadable(f'holds {shortened(turn, 40)}, which is no turn such as {{"role": "user", "content": "…"}}')
    turn = {str(key).lower(): item for key, item in turn.items()}
    speakers = (turn[key] for key in SPEAKER_KEYS if isinstance(turn.get(key), str))
    speaker = next((name.strip().lower() for name in speakers if name.strip()), None)
    if speaker is None:
        pair = next((pair for pair in PAIRS if set(pair) <= turn.keys()), None)
        if pair is None:
            raise Unreadable(f"holds a turn without a speaker (its keys: {', '.join(map(str, turn))[:60]})")
        yield Message("user", _words(turn[pair[0]]))
        yield Message("assistant", _words(turn[pair[1]]))
        return
    role = SPEAKERS.get(speaker)
    if role is None:
        allowed = "system, user, assistant, tool"
        raise Unreadable(f"there is no role {shortened(speaker, 40)}; allowed: {allowed}, or ShareGPT's human and gpt")
    words = _words(next((turn[key] for key in WORD_KEYS if turn.get(key) not in (None, "", [])), None))
    unused |= {key for key in turn if key not in READ and turn[key] not in (None, "", [], {})}
    words, calls = _calls(turn, speaker, words) if role == "assistant" else (words, None)
    if role == "tool" and (result := MARKED_RESULT.fullmatch(words)):
        words = result[1].strip()
    extra: dict[str, Any] = {} if calls is None else {"tool_calls": calls}
    if turn.get("tool_call_id"):
        extra["tool_call_id"] = turn["tool_call_id"]
    learned = turn.get("weight") != 0 and turn.get("train") is not False and "tool_calls" not in extra
    yield Message(role, words, learned, _as_text(extra))


def _words(value: Any) -> str:
    """The text of a turn: a string, or a list of parts that are all text."""
    if isinstance(value, str | int | float) or value is None:
        return written(value)
    parts = value if isinstance(value, list) else [value]
    texts = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type", "text") if isinstance(part, dict) else type(part).__name__
        if kind in PICTURES:
            raise Unreadable(f"holds an image or a recording (a part of type '{kind}'); only text is learned")
        if kind not in ("text", "input_text", "output_text") or not isinstance(part, dict):
            raise Unreadable(f"a part of type {shortened(kind, 30)}; only text is learned")
        texts.append(written(part.get("text", part.get("content"))))
    return "".join(texts)


def _calls(turn: dict[str, Any], speaker: str, words: str) -> tuple[str, list[dict[str, Any]] | None]:
    """The words of an assistant's turn without the calls of tools in it, and these. What is said to be a call and is
    none that can be read stays in the words, with no calls: it is no answer either.

    Raises:
        Unreadable: `tool_calls` is no list of calls.
    """
    given = turn.get("tool_calls") or turn.get("function_call")
    if isinstance(given, str):
        given = _given(given)
    if given:
        return words, [_call(one) for one in (given if isinstance(given, list) else [given])]
    if speaker in ("function_call", "tool_call"):
        calls = _parsed(words)
        return ("", [_call(one) for one in calls]) if calls else (words, [])
    marked = [first or second for first, second in MARKED_CALL.findall(words)]
    if not marked:
        return words, None
    found = [_parsed(one) for one in marked]
    if not all(found):  # a text on how calls are written, or a call
        return words, [] if words.lstrip().startswith(("<tool_call>", "<functioncall>")) else None
    return MARKED_CALL.sub("", words).strip(), [_call(one) for calls in found for one in calls]


def _given(text: str) -> Any:
    try:
        return parse_json(text) if text.strip() else None
    except Unreadable as problem:
        raise Unreadable(f"holds calls of tools that are {problem}") from None


def _parsed(text: str) -> list[Any]:
    """The calls in a text; none where it is not written as calls are."""
    if glaives := GLAIVES.fullmatch(text.strip()):  # JSON but for its arguments, which stand in single quotes
        return [{"name": glaives[1], "arguments": glaives[2]}]
    try:
        calls = parse_json(text)
    except Unreadable:
        return []
    calls = calls if isinstance(calls, list) else [calls]
    return calls if all(isinstance(call, dict) and {"name", "function"} & call.keys() for call in calls) else []


def _call(call: Any) -> dict[str, Any]:
    """A call in the form that templates know, its arguments as an object.

    Raises:
        Unreadable: it is none.
    """
    if isinstance(call, str):
        call = parse_json(call) if call.lstrip().startswith("{") else {"name": call}
    if not isinstance(call, dict):
        raise Unreadable(f"holds {shortened(call, 40)}, which is no call of a tool")
    function = call.get("function") or {key: call[key] for key in ("name", "arguments") if key in call}
    if isinstance(function, str):
        written_out = function.lstrip().startswith("{")
        function = parse_json(function) if written_out else {"name": function, "arguments": call.get("arguments", {})}
    if not isinstance(function, dict):
        raise Unreadable(f"holds {shortened(function, 40)}, which is no call of a tool")
    function = {**function, "arguments": function.get("arguments") or {}}  # without any, too, templates write them
    if isinstance(function.get("arguments"), str):
        with suppress(Unreadable):  # what a model wrote need not be JSON
            function["arguments"] = parse_json(function["arguments"] or "{}")
    made = {"type": "function", "function": function}
    return made | ({"id": call["id"]} if call.get("id") else {})


def _as_text(extra: dict[str, Any]) -> str:
    return json.dumps(extra, ensure_ascii=False) if extra else ""
