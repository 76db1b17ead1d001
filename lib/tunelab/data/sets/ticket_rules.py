"""What rules by hand make of a support ticket: the floor that anybody who knows regular expressions can reach.

Written as one would write them for a shop's mailbox: from the words of each field, with the negations that come to mind
first ("no hurry", "don't want"), without looking at the held-out rows.
"""

from __future__ import annotations

import json
import re

PRODUCTS = {
    "kettle": r"kettle",
    "toaster": r"toaster",
    "espresso machine": r"espresso|coffee (?:machine|maker)",
    "blender": r"blender|smoothie",
    "vacuum cleaner": r"vacuum|hoover",
    "bike light": r"(?:bike|bicycle) (?:light|lamp)|light for the bike",
    "desk lamp": r"\blamp\b",
    "headset": r"headset|headphones",
    "keyboard": r"keyboard",
    "rain jacket": r"jacket|raincoat",
    "backpack": r"backpack|rucksack|hiking pack|daypack",
    "tent": r"\btent\b",
}
PASSING = r"\b(?:another|also|other)\b|not about|not what I mean|separate|earlier|same parcel|came with"
LOW = r"no (?:hurry|rush)|not urgent|can wait|take your time|no need|whenever|plenty of time|not rush|patient"
HIGH = (
    r"urgent|hurry|at once|today|tomorrow|tonight|immediately|as soon as|right away|within the hour|priority|emergency"
)
NEGATIVE = (
    r"disappointed|unacceptable|angry|waste|\bbad\b|worst|terrible|fed up|rude|shame|joke|poor|cheated|unhappy"
    r"|not happy"
)
POSITIVE = (
    r"happy|great|love|wonderful|recommend|excellent|delighted|joy|kind\b|thank you for|grateful|satisfied|lovely"
)
ACTIONS = {
    "cancel": r"cancel|withdraw|call off|stop the order|not (?:send|deliver|ship)|delete my order",
    "invoice": r"invoice (?:with|on|for)|the invoice\.|my invoice|\bbill\b|receipt|paperwork|proof of purchase",
    "repair": r"repair|\bfix|mend|workshop|technician|working (?:again|order)",
    "replacement": r"replace|new one|another one|swap|exchange|substitute|new unit",
    "refund": r"refund|money back|pa(?:y|id) (?:me )?back|return the amount|credit|reimburse|reverse",
}
REFUSAL = r"(?:n't want|no longer want|\bno|not|rather than|than|keep the|use to me)\W+(?:[\w']+\W+){0,2}?"
ID = r"(?<![\w/.-])(?:[A-Z]{1,3}\d*[-/]?\d{3,}|20\d\d-\d{5}|\d{4}/\d\d|\d{6})(?![\w/-])"
ORDER = rf"\b(?:order|purchase|ordered)\b[^.\d]{{0,30}}?({ID})|({ID})[^.\d]{{0,12}}\border\b"
OTHER_NUMBER = r"(?:invoice|customer|serial|tracking|parcel|article|voucher|card)\b[^.\d]{0,25}$"


def answer_by_rules(prompt: str) -> str:
    """The JSON object that rules find for a prompt of `support-tickets`."""
    email = prompt.partition("\n\n")[2]
    found = {
        "product": _product(email),
        "urgency": _urgency(email),
        "sentiment": _sentiment(email),
        "action": _action(email),
        "order_id": _order_id(email),
    }
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))


def _product(email: str) -> str | None:
    """The first product of a sentence that does not mention it in passing."""
    sentences = re.split(r"(?<=[.!?:])\s|\n", email)
    for sentence in [s for s in sentences if not re.search(PASSING, s, re.I)] + sentences:
        for product, pattern in PRODUCTS.items():
            if re.search(pattern, sentence, re.I):
                return product
    return None


def _urgency(email: str) -> str:
    if re.search(LOW, email, re.I):
        return "low"
    return "high" if re.search(HIGH, email, re.I) else "normal"


def _sentiment(email: str) -> str:
    if re.search(NEGATIVE, email, re.I):
        return "negative"
    return "positive" if re.search(POSITIVE, email, re.I) else "neutral"


def _action(email: str) -> str:
    """The first action that is named and not refused in the same breath."""
    for action, pattern in ACTIONS.items():
        for match in re.finditer(pattern, email, re.I):
            if not re.search(rf"{REFUSAL}$", email[: match.start()], re.I):
                return action
    return "advice"


def _order_id(email: str) -> str | None:
    """The number beside the word 'order'; without one, the first number that is not called something else."""
    if re.search(r"order number (?:got lost|any more|here|is not readable)|(?:have|know|find) the order number", email):
        return None
    if match := re.search(ORDER, email):
        return match[1] or match[2]
    for match in re.finditer(ID, email):
        if not re.search(OTHER_NUMBER, email[: match.start()], re.I):
            return match[0]
    return None
