"""What columns are called in the files that people have, by what they hold; and other spellings of these names."""

from __future__ import annotations

from collections.abc import Iterable

from tunelab.data.columns import Column

TURNS = ("messages", "conversations", "conversation", "items", "dialogue", "dialog", "turns", "chat", "contents")
TEXTS_IN_TURN = (*TURNS, "utterances", "data")  # may hold a list of texts, of which every second one answers
ASKED = (
    "instruction",
    "prompt",
    "question",
    "query",
    "user",
    "human",
    "problem",
    "request",
    "goal",
    "ctx",
    "question_stem",
    "startphrase",
)
ASKED_BY_TEXT = (
    "input",
    "inputs",
    "text",
    "sentence",
    "utterance",
    "message",
    "review",
    "content",
    "document",
    "article",
    "body",
    "report",
    "dialogue",
    "dialog",
    "conversation",
    "transcript",
    "email",
    "comment",
    "tweet",
    "claim",
    "statement",
    "premise",
    "passage",
    "paragraph",
    "code",
    "source",
)
# columns that are asked together where a label answers: each stands in the prompt under its name
TOGETHER = (
    "premise",
    "hypothesis",
    "sentence",
    "claim",
    "evidence",
    "statement",
    "aspect",
    "word",
    "target_word",
    "term",
    "entity",
    *(f"{stem}{mark}" for stem in ("sentence", "sent", "question", "text", "s") for mark in ("1", "2", "_1", "_2")),
    *(f"{stem}_{mark}" for stem in ("sentence", "question", "text") for mark in ("a", "b")),
)
ANSWERS = (
    "completion",
    "response",
    "output",
    "answer",
    "answers",
    "chosen",
    "target",
    "assistant",
    "gpt",
    "reply",
    "accepted",
    "targets",
    "bot",
    "ai",
)
ANSWERS_LAST = (
    "solution",
    "summary",
    "highlights",
    "abstract",
    "tldr",
    "generation",
    "generated",
    "translation",
    "paraphrase",
    "rewrite",
    "rewritten",
    "correction",
    "corrected",
    "simplified",
    "sql",
    "code",
)
LABELS = ("label", "labels", "label_text", "intent", "category", "class", "sentiment", "topic")
CHOICES = ("choices", "options", "endings")
BESIDE = (
    "input",
    "context",
    "text",
    "passage",
    "paragraph",
    "document",
    "article",
    "story",
    "background",
    "definition",
    *CHOICES,
)
SYSTEMS = ("system", "system_prompt", "systemprompt", "system_message", "system_instruction")
RIGHT = (
    "answer",
    "answerkey",
    "answer_key",
    "label",
    "answer_idx",
    "answer_index",
    "answer_letter",
    "correct",
    "correct_answer",
    "correct_option",
    "correct_choice",
    "correct_index",
    "correct_idx",
    "right_answer",
    "gold",
    "gold_label",
    "cop",
    "target",
)
IMAGES = ("image", "images", "img", "picture", "image_path", "image_url", "pixel_values")
IDS = ("id", "index", "ind", "idx", "no", "nr", "uid", "uuid", "guid", "row", "key", "unnamed: 0", "")
TEXTS = ("text", "content", "document", "article", "body", "markdown", "code", "page")
WITHIN = ("text", "value", "content", "answer", "human_readable")  # the words of an answer that is an object
# what is told about a row, and neither asked nor answered
ABOUT = (
    "title",
    "headline",
    "subject",
    "name",
    "author",
    "date",
    "source",
    "model",
    "url",
    "link",
    "location",
    "lang",
    "language",
    "license",
    "history",
    "tools",
    "metadata",
)
ABOUT_ENDINGS = ("_id", "_url", "_name", "_date", "_title", "_path", "_idx", "_model", "_source", "_location")
NEVER = (
    "rejected",
    "non_preferred",
    "nonpreferred",
    "dispreferred",
    "incorrect",
    "wrong",
    "distractor",
    "worst",
)  # and all names that begin so
FIRST = (
    "best",
    "correct",
    "accepted",
    "preferred",
    "gold",
    "golden",
    "reference",
    "ideal",
    "expected",
    "final",
    "long",
    "model",
)
FIRST_WORDS = (*FIRST, "generated", "assistant", "ai", "bot", "agent", "chosen", "user", "customer", "full", "original")
LAST_WORDS = ("text", "content", "string", "str")


def by_name(columns: Iterable[Column]) -> dict[str, str]:
    """The filled columns by the names that they go by: their own, and for those that go by a name that no other column
    has, the one in it: `output` for `output_text`, `answer` for `best_answer`."""
    filled = [column for column in columns if column.filled]
    known = {column.key: column.name for column in reversed(filled)}
    for column in filled:
        for stem in _stems(column.key):
            known.setdefault(stem, column.name)
    return known


def _stems(key: str) -> Iterable[str]:
    head, _, last = key.rpartition("_")
    first, _, tail = key.partition("_")
    if head and last in LAST_WORDS:
        yield head
    if tail and first in FIRST_WORDS:
        yield tail


def goes_by(column: Column, keys: Iterable[str]) -> bool:
    """Whether a column has one of these names, in any spelling."""
    return not {column.key, *_stems(column.key)}.isdisjoint(keys)


def is_about(column: Column) -> bool:
    """Whether a column tells something about its row: an id, a title, where it is from."""
    return column.key in (*IDS, *ABOUT) or column.key.endswith(ABOUT_ENDINGS) or is_never(column)


def is_never(column: Column) -> bool:
    """Whether a column holds what must not be learned."""
    return column.key.startswith(NEVER)


def first(keys: Iterable[str], columns: dict[str, str]) -> str | None:
    """The column of the first of these names that there is."""
    return next((columns[key] for key in keys if key in columns), None)
