"""`text-to-sql`: a question about a shop, answered with the query that answers it.

The kinds of query, each with its questions, stand in `text_to_sql.txt`. One style throughout: a table has one alias
(c, p, o, i, r), joins begin with the table that points to the others, months are prefixes of ISO dates.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import Any

from tunelab.data.sets.frames import Draw, Part, of_part, read_frames
from tunelab.data.sets.shop import MONTHS, SCHEMA, STATUSES, shop, shop_database
from tunelab.data.sets.support_tickets import MONTHS as MONTH_NAMES

INSTRUCTION = f"Tables: {SCHEMA}\nWrite the SQLite query that answers the question.\nQuestion: "
EXPLANATION = (
    "Answer with one SQLite query and nothing else: no explanation, no code fence. Use only the tables and columns "
    "that are given. Dates are texts like '2023-05-14'; order_items links orders and products; customer_id and "
    "product_id point to the ids of customers and products."
)
ROWS, HELDOUT = 3200, 400
TRIES = 200  # draws of one kind without a new question, after which it has no more


def train_rows() -> list[dict[str, Any]]:
    """3,200 rows with `prompt` and `completion`."""
    return _rows("train", ROWS, seed=21)


def heldout_rows() -> list[dict[str, Any]]:
    """400 rows whose questions have sentences, names, cities, products and dates that no training row has."""
    return _rows("heldout", HELDOUT, seed=22)


def _rows(part: Part, count: int, seed: int) -> list[dict[str, Any]]:
    """Rows of every kind of query, equally many as long as a kind has new questions."""
    with closing(shop_database()) as database:
        writer = _Writer(part, Draw(seed), database)
        kinds = list(read_frames("text_to_sql").items())
        while len(writer.rows) < count:
            kinds = [(sql, questions) for sql, questions in kinds if writer.add(sql, of_part(questions, part))]
    chosen = writer.draw.shuffled(list(writer.rows.items())[:count])
    return [{"prompt": INSTRUCTION + question, "completion": sql} for question, sql in chosen]


class _Writer:
    """Draws questions of one part and keeps the queries that answer them."""

    def __init__(self, part: Part, draw: Draw, database: sqlite3.Connection) -> None:
        made = shop()
        self.draw, self.database = draw, database
        self.rows: dict[str, str] = {}
        self._says: dict[str, bool] = {}
        self._openers = of_part(read_frames("shop")["opener"], part)
        self._places = of_part(read_frames("names")["place"], part)
        self._months = of_part(MONTHS, part)
        self._customers, self._products = made.names("customers", part), made.names("products", part)
        self._categories = sorted({product[2] for product in made.products})

    def add(self, sql: str, questions: tuple[str, ...]) -> bool:
        """Whether a new question of this kind was found and kept."""
        for _ in range(TRIES):
            values = self._values()
            question = self.draw.one(questions).format_map(values)
            if self.draw.chance(0.3):
                question = f"{self.draw.one(self._openers)} {question}"
            query = sql.format_map(values)
            if question not in self.rows and self._is_told(query):
                self.rows[question] = query
                return True
        return False

    def _is_told(self, query: str) -> bool:
        if query not in self._says:
            self._says[query] = says_something(self.database, query)
        return self._says[query]

    def _values(self) -> dict[str, str]:
        """What the slots of a question and its query are filled with."""
        draw = self.draw
        country, city = draw.one(self._places).split(": ")
        month, day = draw.one(self._months), draw.number(1, 28)
        name, year = MONTH_NAMES[int(month[5:]) - 1], month[:4]
        return {
            "city": city,
            "country": country,
            "customer": draw.one(self._customers),
            "product": draw.one(self._products),
            "category": draw.one(self._categories),
            "status": draw.one(STATUSES),
            "month": f"{name} {year}",
            "ym": month,
            "iso": f"{month}-{day:02}",
            "date": draw.one((f"{day} {name} {year}", f"{month}-{day:02}")),
            "price": str(draw.number(10, 280)),
            "stars": str(draw.number(2, 4)),
            "many": str(draw.number(4, 10)),
            "n": str(draw.number(2, 10)),
        }


def says_something(database: sqlite3.Connection, query: str) -> bool:
    """Whether the query has a result that is neither zero nor NULL; where it keeps the first rows, no tie decides."""
    rows = database.execute(query).fetchall()
    if not rows or rows[0][0] in (None, 0):
        return False
    cut = re.fullmatch(r"SELECT .*? (FROM .* ORDER BY (.+?)(?: DESC)?) LIMIT (\d+)", query)
    if not cut:
        return True
    first = database.execute(f"SELECT {cut[2]} {query[query.index('FROM') : cut.end(1)]} LIMIT {int(cut[3]) + 1}")
    keys = [row[0] for row in first]
    return len(set(keys)) == len(keys)
