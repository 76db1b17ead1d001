"""Seeded pairs of answers and references, the awkward ones included."""

from __future__ import annotations

import random

WORDS = """the a an cat dog sat on mat Return list of int, new: value. It's state-of-the-art 3.14 42 $5 naïve Grüße
Straße İstanbul кошка сидит नमस्ते दुनिया 猫が座る 🙂 e\u0301t\u00e9 x_y <tag> "quoted" (bracket) re-run""".split()
EDGES = [
    ("", ""),
    ("", "a reference"),
    ("a prediction", ""),
    ("   ", " \n"),
    ("the", "a"),
    ("...", "!!!"),
    ("猫が座る", "猫が座る"),
    ("кошка сидит", "Кошка сидит."),
    ("🙂", "🙂🙂"),
    ("İ", "i"),
]


def cases(words: list[str] = WORDS, count: int = 200, seed: int = 0) -> tuple[list[str], list[str]]:
    """Predictions and references: each prediction is its reference with words changed, left out, added or moved."""
    draw = random.Random(seed)
    pairs = list(EDGES)
    while len(pairs) < count:
        wanted = draw.choices(words, k=draw.randint(1, 12))
        given = [draw.choice(words) if draw.random() < 0.2 else word for word in wanted if draw.random() < 0.85]
        given += draw.choices(words, k=draw.choice((0, 0, 0, 2)))
        if draw.random() < 0.1:
            draw.shuffle(given)
        pairs.append((" ".join(given), " ".join(wanted) if draw.random() < 0.9 else " ".join(given).upper()))
    return [given for given, _ in pairs], [wanted for _, wanted in pairs]
