"""Queries of unknown origin can only read, not for long and not much; their rows are compared as SQL means them."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunelab.data.sets.shop import shop_database
from tunelab.data.sets.text_to_sql import heldout_rows
from tunelab.errors import UserError
from tunelab.measure.metrics.sql import ExecutionAccuracy, QueryError, Sandbox, orders_its_rows, same_rows

ENDLESS = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t)"


@pytest.fixture
def database():
    with closing(shop_database()) as opened:
        yield opened


@pytest.fixture
def sandbox(database):
    return Sandbox(database, seconds=0.2, most_rows=1000)


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM orders",
        "UPDATE orders SET status = 'open'",
        "INSERT INTO reviews VALUES (1, 1, 5)",
        "DROP TABLE orders",
        "CREATE TABLE x (y)",
        "CREATE TEMP TABLE x (y)",
        "CREATE TEMP VIEW x AS SELECT 1",
        "ALTER TABLE orders RENAME TO x",
        "ATTACH 'x.db' AS x",
        "ATTACH ':memory:' AS x",
        "DETACH main",
        "VACUUM",
        "VACUUM INTO 'x.db'",
        "PRAGMA writable_schema = 1",
        "PRAGMA table_info(orders)",
        "SELECT * FROM pragma_table_info('orders')",
        "SELECT * FROM pragma_database_list",
        "BEGIN",
        "COMMIT",
        "SAVEPOINT x",
        "REINDEX",
        "ANALYZE",
        "SELECT load_extension('x.so')",
        "SELECT LOAD_EXTENSION('x.so')",
        "SELECT readfile('/etc/passwd')",
        "SELECT random()",
        "SELECT printf('%.*c', 100000000, 'x')",
        "SELECT hex(zeroblob(100000000))",
        "SELECT 1; DELETE FROM orders",
        "WITH x AS (SELECT 1) DELETE FROM orders",
    ],
)
def test_nothing_but_reading_is_allowed(query, database, sandbox, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = list(database.iterdump())
    with pytest.raises(QueryError):
        sandbox.run(query)
    assert list(database.iterdump()) == before
    assert list(tmp_path.iterdir()) == []
    assert sandbox.run("SELECT COUNT(*) FROM orders") == database.execute("SELECT COUNT(*) FROM orders").fetchall()


@pytest.mark.parametrize(
    "query",
    [
        f"{ENDLESS} SELECT COUNT(*) FROM t",
        f"{ENDLESS} SELECT n FROM t ORDER BY n DESC",
        f"{ENDLESS} SELECT n FROM t WHERE n < 0",
        f"{ENDLESS} SELECT n FROM t",
        "SELECT SUM(a.id) FROM orders a, orders b, orders c",
        "SELECT a.id FROM orders a, orders b",
        f"{ENDLESS}, s(x) AS (SELECT group_concat(n) FROM (SELECT n FROM t LIMIT 20000)) SELECT x FROM s, t",
    ],
)
def test_what_would_not_end_is_ended(query, sandbox):
    with pytest.raises(QueryError, match=r"not done after 0\.2 seconds|more than 1,000 rows|too big"):
        sandbox.run(query)
    assert sandbox.run("SELECT 1") == [(1,)], "the next query has its own time"


@pytest.mark.parametrize(
    "text",
    ["", "   ", ";", "-- nothing", "SELECT", "SELECT nothing FROM orders", "I can't say.", "```sql\nSELECT 1\n```",
     "SELECT 1; SELECT 2", "SELECT ?", "SELECT :x", "SELECT '\0'", "SELECT '\ud800'", "SELECT CAST(x'ff' AS TEXT)",
     "SELECT " + "(" * 5000, "SELECT abs(-9223372036854775808)", "SELECT 1" + " " * 200_000],
)  # fmt: skip
def test_an_answer_that_is_no_query_is_wrong_and_nothing_breaks(text, database):
    assert ExecutionAccuracy(database).score(text, "SELECT 1") == 0


@given(st.text())
def test_no_text_breaks_the_sandbox(text):
    with closing(sqlite3.connect(":memory:")) as empty:
        sandbox = Sandbox(empty, seconds=0.2)
        try:
            rows = sandbox.run(text)
        except QueryError:
            rows = []
        assert isinstance(rows, list)


def test_the_sandbox_is_a_copy_and_leaves_the_database_as_it_was(database):
    sandbox = Sandbox(database)
    database.execute("DELETE FROM orders")
    assert sandbox.run("SELECT COUNT(*) > 0 FROM orders") == [(1,)]
    assert database.execute("PRAGMA query_only").fetchone() == (0,)


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("select name from customers;", "SELECT name FROM customers", True),
        ("SELECT name AS n FROM customers c ORDER BY id DESC", "SELECT name FROM customers", True),
        ("SELECT name FROM customers ORDER BY id DESC", "SELECT name FROM customers ORDER BY id", False),
        ("SELECT name FROM customers ORDER BY id", "SELECT name FROM customers ORDER BY id ASC", True),
        ("SELECT city FROM customers", "SELECT DISTINCT city FROM customers", False),
        ("SELECT city FROM customers GROUP BY city", "SELECT DISTINCT city FROM customers", True),
        ("SELECT id, name FROM customers", "SELECT name, id FROM customers", False),
        ("SELECT name, city FROM customers", "SELECT name FROM customers", False),
        ("SELECT AVG(price) FROM products", "SELECT SUM(price) * 1.0 / COUNT(*) FROM products", True),
        ("SELECT ROUND(AVG(price), 1) FROM products", "SELECT AVG(price) + 0.01 FROM products", False),
        ("SELECT COUNT(*) FROM orders", "SELECT COUNT(id) + 0.0 FROM orders", True),
        ("SELECT '3'", "SELECT 3", False),
        ("SELECT NULL", "SELECT NULL", True),
        ("SELECT NULL", "SELECT 0", False),
        ("SELECT 0.1 + 0.2 - 0.3", "SELECT 0", True),
        ("SELECT name FROM customers WHERE 0", "SELECT name FROM products WHERE 0", True),
        ("SELECT 1 LIMIT 0", "SELECT 1", False),
    ],
)  # fmt: skip
def test_answers_are_right_when_they_return_the_same_rows(answer, reference, right, database):
    metric = ExecutionAccuracy(database)
    assert metric.score(answer, reference) == 100 * right
    assert metric([answer], [reference]) == 100.0 * right


@pytest.mark.parametrize(
    ("query", "ordered"),
    [
        ("SELECT a FROM t ORDER BY a", True),
        ("select a from t\norder\n by a limit 3", True),
        ("SELECT a FROM t", False),
        ("SELECT a FROM (SELECT a FROM t ORDER BY a LIMIT 3)", False),
        ("SELECT rank() OVER (PARTITION BY a ORDER BY b) FROM t", False),
        ("SELECT a FROM t WHERE b = 'order by'", False),
        ("SELECT a FROM t WHERE b = 'it''s (' ORDER BY a", True),
        ('SELECT "order by" FROM t', False),
        ("SELECT a FROM t -- ORDER BY a", False),
        ("SELECT a FROM t /* ORDER BY a */", False),
        ("WITH s AS (SELECT a FROM t ORDER BY a) SELECT a FROM s", False),
        ("SELECT a FROM t WHERE a IN (SELECT (b) FROM u) ORDER BY a", True),
    ],
)
def test_only_an_order_of_the_whole_result_counts(query, ordered):
    assert orders_its_rows(query) == ordered


cells = st.one_of(
    st.none(), st.integers(-5, 5), st.sampled_from([0.1, 0.25, 1e9]), st.text(max_size=2), st.binary(max_size=2)
)
tables = st.lists(st.tuples(cells, cells), max_size=8)


@given(tables, st.randoms())
def test_order_does_not_matter_unless_it_does(rows, random):
    shuffled = rows.copy()
    random.shuffle(shuffled)
    assert same_rows(shuffled, rows, ordered=False)
    assert same_rows(rows, rows, ordered=True)
    assert same_rows(shuffled, rows, ordered=True) == (shuffled == rows)


@given(tables, tables)
def test_rows_are_compared_as_multisets(one, other):
    left = other.copy()
    for row in one:
        if row in left:
            left.remove(row)
    equal = len(one) == len(other) and not left
    assert same_rows(one, other, ordered=False) == equal


@pytest.mark.parametrize(
    ("rows", "expected", "right"),
    [
        ([(1700000000,)], [(1700000001,)], False),  # ids, and times in seconds, are right or wrong
        ([(2**62 + 1,)], [(2**62,)], False),
        ([(1700000000.0,)], [(1700000000,)], True),
        ([(1 / 3,)], [(0.3333333,)], True),
        ([(1000001,), (1000004,)], [(1000004,), (1000001,)], True),
        ([(1000001.0, "a"), (1000004.0, "b")], [(1000004.0, "b"), (1000001.0, "a")], True),
        ([(1000001.0, "a"), (1000004.0, "b")], [(1000004.0, "a"), (1000001.0, "b")], False),
        # the same sums, rounded otherwise, beside a number that is nearly the same
        ([(0.1 + 0.2, 1.5), (0.3, 2.5)], [(0.3, 1.5), (0.1 + 0.2, 2.5)], True),
        ([(1234565.0, 1), (1234564.9999999, 2)], [(1234564.9999999, 1), (1234565.0, 2)], True),
        ([(None, 1)], [(None, 1.0)], True),
        ([(1,), (1,), (2,)], [(1,), (2,), (2,)], False),
    ],
)
def test_whole_numbers_are_compared_as_they_are_and_others_as_they_may_be_rounded(rows, expected, right):
    assert same_rows(rows, expected, ordered=False) is right
    assert same_rows(expected, rows[::-1], ordered=False) is right


def test_a_query_may_read_json(sandbox):
    assert sandbox.run("SELECT value FROM json_each('[3, 4]')") == [(3,), (4,)]


def test_two_hundred_answers_count_as_sqlite_itself_answers_them(database):
    references = [row["completion"] for row in heldout_rows()[:200]]
    answers = [
        other if row % 2 else same for row, (same, other) in enumerate(zip(references, references[::-1], strict=True))
    ]
    answers[:4] = ["", "I can't say.", f"{references[2]};", references[3].lower()]

    def returned(query: str, ordered: bool) -> list[tuple] | None:
        try:
            rows = database.execute(query).fetchall()
        except sqlite3.Error:
            return None
        rows = [tuple(round(cell, 6) if isinstance(cell, float) else cell for cell in row) for row in rows]
        return rows if ordered else sorted(rows, key=repr)

    expected = []
    for answer, reference in zip(answers, references, strict=True):
        ordered = "ORDER BY" in reference.rpartition(")")[2]
        expected.append(100.0 * (bool(answer) and returned(answer, ordered) == returned(reference, ordered)))
    assert ExecutionAccuracy(database).rows(answers, references) == expected
    assert 90 < sum(score == 100 for score in expected) < 150


def test_a_reference_that_fails_is_a_mistake(database):
    with pytest.raises(UserError, match=r"SELECT x FROM orders.*no such column: x.*mend the row"):
        ExecutionAccuracy(database).score("SELECT 1", "SELECT x FROM orders")
