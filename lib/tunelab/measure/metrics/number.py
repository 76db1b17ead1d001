"""Answers that are numbers, or end with one."""

from __future__ import annotations

import re
from collections import deque
from decimal import Decimal

from tunelab.errors import UserError, shortened
from tunelab.measure.metrics.protocol import RowMetric

SPACE = r"['’\u00a0\u202f\u2009]"
BY = rf"(?:,|{SPACE})"  # what stands between thousands
# Not within a word ('H2O'); a minus is a sign where nothing stands right before it: not in '10-5' or a date.
NUMBER = re.compile(
    rf"""
    (?: (?<![\w.)\]]) (?P<sign> [-−] ) [$€£¥]? )?
    (?<![A-Za-z_\d]) (?<!\d[.,])
    (?:
        (?<!/) (?P<above> \d+ ) [ ]?/[ ]? (?P<below> \d+ ) (?! \d | [ ]?/ | [.,]\d )
      | (?P<digits> \d (?: (?:\d | \. | {BY})* \d )? | (?<!\w)\.\d+ ) (?P<exponent> [eE][-+]?\d{{1,4}} (?!\w) )?
    )
    """,
    re.X,
)
THOUSANDS = re.compile(rf"\d{{1,3}}(?P<by>{BY})\d{{3}}(?:(?P=by)\d{{3}})*(?:\.\d+)?")
POINTS = re.compile(
    rf"\d{{1,3}}(?:\.\d{{3}})+,\d+|\d{{1,3}}(?:\.\d{{3}}){{2,}}|\d{{1,3}}(?:{SPACE}\d{{3}})+,\d+|\d+,\d+"
)


class NumberMatch(RowMetric):
    """100 where the last number of the answer equals the last number of the reference; else 0.

    The last one, because an answer that reasons ends with its result. Numbers are equal when their values are: 1234,
    1,234.0 and 1.234e3; 3/4 and 0.75; 3,5 and 3.5. A comma before exactly three digits stands between thousands, a
    point alone is a decimal point. Units and per cent signs are not looked at.
    """

    name, title, unit, range, higher_is_better = "number_match", "number right", "%", (0, 100), True
    source = "Cobbe et al. 2021, 'Training Verifiers to Solve Math Word Problems' (the final number), by value"

    def score(self, prediction: str, reference: str) -> float:
        """Raises: UserError where the reference has no number."""
        wanted = last_number(reference)
        if wanted is None:
            raise UserError(
                f"reference = {shortened(reference)} has no number. The metric number_match needs one in every "
                "reference: mend the row, or choose the metric exact_match."
            )
        return 100.0 * (last_number(prediction) == wanted)


def last_number(text: str) -> Decimal | None:
    """The value of the last number in a text; None where there is none."""
    found = deque(NUMBER.finditer(text), maxlen=1)
    if not found:
        return None
    last = found[0]
    value = _fraction(last["above"], last["below"]) if last["above"] else _value(last["digits"], last["exponent"] or "")
    return value.copy_negate() if last["sign"] else value


def _fraction(above: str, below: str) -> Decimal:
    return Decimal(above) / Decimal(below) if Decimal(below) else Decimal(below)


def _value(digits: str, exponent: str) -> Decimal:
    if THOUSANDS.fullmatch(digits):
        digits = re.sub(BY, "", digits)
    elif POINTS.fullmatch(digits):
        whole, _, after = digits.rpartition(",") if "," in digits else (digits, "", "")
        digits = re.sub(rf"\.|{BY}", "", whole) + (f".{after}" if after else "")
    elif not re.fullmatch(r"\d*\.?\d+", digits):
        digits = re.findall(r"\d+", digits)[-1]  # a list '1,2,3' or a date: its last number
    return Decimal(digits + exponent)
