"""`support-tickets`: a customer's e-mail, answered with a JSON object of five fields.

A row is drawn from its answer: product, urgency, sentiment, action and order id come first, then a sentence for each of
them, in any order, among sentences that say nothing of it. Other products, other numbers of the same shape, refusals
("I don't want my money back") and spelling slips stand in the way of rules that look for words.

`urgency` is high when the writer can't wait (at once, tomorrow, in two days), low when it can wait, normal when the
usual time will do or nothing is said. `sentiment` is about the shop, neutral where nothing is said. `order_id` is null
where the e-mail gives no order's number, whatever other numbers it gives.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tunelab.data.sets.frames import Draw, Families, Part, families_of_part, of_part, read_frames

INSTRUCTION = "Read this e-mail. Answer with its product, urgency, sentiment, action and order_id as JSON."
PRODUCTS = (
    "kettle",
    "toaster",
    "espresso machine",
    "blender",
    "vacuum cleaner",
    "desk lamp",
    "headset",
    "keyboard",
    "bike light",
    "rain jacket",
    "backpack",
    "tent",
)
URGENCIES = ("low", "normal", "high")
SENTIMENTS = ("negative", "neutral", "positive")
ACTIONS = ("refund", "replacement", "repair", "cancel", "invoice", "advice")
EXPLANATION = (
    "Answer with one JSON object in one line and nothing else. Its keys: "
    f'"product" ({", ".join(PRODUCTS)}), "urgency" ({", ".join(URGENCIES)}), "sentiment" towards the shop '
    f'({", ".join(SENTIMENTS)}), "action" that is asked for ({", ".join(ACTIONS)}), "order_id" (as written in the '
    "e-mail, or null)."
)
ROWS, HELDOUT = 3000, 400
LONGEST = 400  # characters of an e-mail
MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
# A is a letter, 9 a digit
ID_SHAPES = ("AA-99999", "999999", "9999/99", "A99-9999", "2099-99999", "AAA9999")
PHONE_SHAPES = ("+43 660 999 9999", "0171 5999999", "+34 699 99 99 99", "(02) 9999 999")
AMOUNT_SHAPES = ("99.90 euros", "EUR 199", "€49.99", "129 euros")


def train_rows() -> list[dict[str, Any]]:
    """3,000 rows with `prompt` and `completion`."""
    return _rows("train", ROWS, seed=12)


def heldout_rows() -> list[dict[str, Any]]:
    """400 rows made of sentences, names and places that no training row has."""
    return _rows("heldout", HELDOUT, seed=13)


def _rows(part: Part, count: int, seed: int) -> list[dict[str, Any]]:
    draw, families = Draw(seed), families_of_part("support_tickets", part)
    people = {family: of_part(entries, part) for family, entries in read_frames("names").items()}
    rows: dict[str, str] = {}
    while len(rows) < count:
        email, answer = _ticket(draw, families, people)
        if len(email) <= LONGEST:
            completion = json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
            rows.setdefault(f"{INSTRUCTION}\n\n{email}", completion)
    return [{"prompt": prompt, "completion": completion} for prompt, completion in rows.items()]


def _ticket(draw: Draw, families: Families, people: Families) -> tuple[str, dict[str, str | None]]:
    """An e-mail and its answer."""
    answer: dict[str, str | None] = {
        "product": draw.one(PRODUCTS),
        "urgency": draw.one(URGENCIES),
        "sentiment": draw.one(SENTIMENTS),
        "action": draw.one(ACTIONS),
        "order_id": _shaped(draw, draw.one(ID_SHAPES)) if draw.chance(0.75) else None,
    }
    values = _values(draw, answer, people)
    sentences = [draw.one(families[family]) for family in _families(draw, answer)]
    body = " ".join(sentences).format_map(values)
    greeting = f"{draw.one(families['greeting'])}\n" if draw.chance(0.85) else ""
    closing = f"\n{draw.one(families['closing'])}" if draw.chance(0.85) else ""
    for _ in range(draw.number(1, 3) if draw.chance(0.6) else 0):
        body = _slip(draw, body)
    return greeting.format_map(values) + body + closing.format_map(values), answer


def _families(draw: Draw, answer: dict[str, str | None]) -> list[str]:
    """The families of an e-mail's sentences, in their order. The problem follows the product, so that "it" is clear."""
    about = ["mention"]
    if answer["action"] in ("cancel", "invoice"):
        about += [f"situation {answer['action']}"] if draw.chance(0.7) else []
    elif answer["action"] != "advice" or draw.chance(0.3):
        about.append(f"problem {answer['product']}")
    blocks = [about, [f"action {answer['action']}"]]
    if answer["order_id"] is not None:
        blocks.append(["order"])
    elif draw.chance(0.5):
        blocks.append(["no order"])
    for name, silent in (("urgency", "normal"), ("sentiment", "neutral")):
        if answer[name] != silent or draw.chance(0.4):
            blocks.append([f"{name} {answer[name]}"])
    blocks += [["aside"]] * draw.chance(0.6) + [["remark"]] * draw.chance(0.4)
    return [family for block in draw.shuffled(blocks) for family in block]


def _values(draw: Draw, answer: dict[str, str | None], people: Families) -> dict[str, str | None]:
    """What the slots of the sentences are filled with."""
    aliases = {product: read_frames("support_tickets")[f"product {product}"] for product in PRODUCTS}
    product = draw.one(aliases[str(answer["product"])])
    other = draw.one(aliases[draw.one([p for p in PRODUCTS if p != answer["product"]])])
    month, day = draw.number(1, 12), draw.number(1, 28)
    dates = (f"{day} {MONTHS[month - 1]}", f"2024-{month:02}-{day:02}", f"{day:02}/{month:02}/2024")
    return {
        "product": product,
        "a": "an" if product[0] in "aeiou" else "a",
        "other": other,
        "id": answer["order_id"],
        "wrong": _shaped(draw, draw.one(ID_SHAPES)),
        "name": f"{draw.one(people['first'])} {draw.one(people['last'])}",
        "place": draw.one(people["place"]).partition(": ")[2],
        "month": draw.one(MONTHS),
        "day": draw.one(DAYS),
        "date": draw.one(dates),
        "phone": _shaped(draw, draw.one(PHONE_SHAPES)),
        "amount": _shaped(draw, draw.one(AMOUNT_SHAPES)),
        "count": str(draw.number(2, 9)),
    }


def _shaped(draw: Draw, shape: str) -> str:
    """A number of this shape: letters for A, digits for 9; the letters of words stay."""
    letters = re.sub(r"A(?=A*[-\d])", lambda _: draw.one("BCDFGHKLMNPRSTVWXZ"), shape)
    return re.sub("9", lambda _: str(draw.number(1, 9)), letters)


def _slip(draw: Draw, text: str) -> str:
    """The text with one letter of one long word left out, doubled or exchanged with its neighbour."""
    words = list(re.finditer(r"\b[a-z]{6,}\b", text))
    if not words:
        return text
    word = draw.one(words)
    place = word.start() + draw.number(1, len(word.group()) - 3)
    one, two = text[place], text[place + 1]
    return text[:place] + draw.one((two, one + one + two, two + one)) + text[place + 2 :]
