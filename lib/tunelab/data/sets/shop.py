"""The shop that `text-to-sql` asks about: five tables, filled by seeded code, in SQLite and in memory."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from tunelab.data.sets.frames import EVERY, Draw, Part, read_frames

SCHEMA = (
    "customers(id, name, city, country, joined), products(id, name, category, price, stock), "
    "orders(id, customer_id, ordered, status), order_items(order_id, product_id, quantity), "
    "reviews(product_id, customer_id, stars)"
)
_TABLES = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT, city TEXT, country TEXT, joined TEXT);
CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, category TEXT, price INTEGER, stock INTEGER);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER, ordered TEXT, status TEXT);
CREATE TABLE order_items (order_id INTEGER, product_id INTEGER, quantity INTEGER);
CREATE TABLE reviews (product_id INTEGER, customer_id INTEGER, stars INTEGER);
"""
STATUSES = ("open", "shipped", "delivered", "returned", "cancelled")
MONTHS = tuple(f"{year}-{month:02}" for year in (2022, 2023, 2024) for month in range(1, 13))
CUSTOMERS, ORDERS, REVIEWS = 256, 1200, 800


@dataclass(frozen=True)
class Shop:
    """The rows of the tables, in the order of their columns."""

    customers: tuple[tuple[int, str, str, str, str], ...]
    products: tuple[tuple[int, str, str, int, int], ...]
    orders: tuple[tuple[int, int, str, str], ...]
    order_items: tuple[tuple[int, int, int], ...]
    reviews: tuple[tuple[int, int, int], ...]

    def names(self, table: str, part: Part) -> list[str]:
        """Names of customers or products that questions of this part ask about. A held-out product's brand, and both
        names of a held-out customer, stand in no training question."""
        family = {"customers": "first", "products": "brand"}[table]
        held = set(read_frames({"customers": "names", "products": "shop"}[table])[family][EVERY - 1 :: EVERY])
        rows = self.customers if table == "customers" else self.products
        return [row[1] for row in rows if (row[1].split()[0] in held) == (part == "heldout")]


def shop() -> Shop:
    """The shop, always the same."""
    draw = Draw(7)
    products = _products(draw)
    customers = _customers(draw)
    orders = tuple(
        (number, draw.number(1, CUSTOMERS), _date(draw), draw.one(STATUSES)) for number in range(1, ORDERS + 1)
    )
    items = tuple(
        (order[0], product, draw.number(1, 5))
        for order in orders
        for product in draw.shuffled(range(1, len(products) + 1))[: draw.number(1, 3)]
    )
    reviews = tuple(
        (product, draw.number(1, CUSTOMERS), min(5, product % 3 + draw.number(1, 4)))
        for product in (draw.number(1, len(products)) for _ in range(REVIEWS))
    )
    return Shop(customers, products, orders, items, reviews)


def shop_database() -> sqlite3.Connection:
    """A new database in memory that holds the shop; the caller closes it."""
    database = sqlite3.connect(":memory:", check_same_thread=False)
    database.executescript(_TABLES)
    made = shop()
    for table in ("customers", "products", "orders", "order_items", "reviews"):
        rows = getattr(made, table)
        database.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
    database.commit()
    return database


def _products(draw: Draw) -> tuple[tuple[int, str, str, int, int], ...]:
    """Every thing by two brands; no two at one price."""
    frames = read_frames("shop")
    things = [thing.split(": ") for thing in frames["thing"]]
    brands = draw.shuffled(frames["brand"])
    half = len(brands) // 2
    prices = draw.shuffled(range(5, 5 + 3 * 2 * len(things), 3))
    named = [
        (f"{row[place]} {thing}", kind)
        for row in (brands, brands[half:] + brands[:half])
        for place, (kind, thing) in enumerate(things)
    ]
    return tuple((n, name, kind, prices[n - 1], draw.number(2, 90)) for n, (name, kind) in enumerate(named, 1))


def _customers(draw: Draw) -> tuple[tuple[int, str, str, str, str], ...]:
    """Names are drawn so that held-out first names go with held-out last names."""
    frames = read_frames("names")
    firsts, lasts, places = frames["first"], frames["last"], frames["place"]
    names: dict[str, None] = {}
    while len(names) < CUSTOMERS:
        first = draw.number(0, len(firsts) - 1)
        same_part = [n for n in range(len(lasts)) if (n % EVERY == EVERY - 1) == (first % EVERY == EVERY - 1)]
        names[f"{firsts[first]} {lasts[draw.one(same_part)]}"] = None
    rows = []
    for number, name in enumerate(names, 1):
        country, city = draw.one(places).split(": ")
        rows.append((number, name, city, country, _date(draw)))
    return tuple(rows)


def _date(draw: Draw) -> str:
    return f"{draw.one(MONTHS)}-{draw.number(1, 28):02}"
