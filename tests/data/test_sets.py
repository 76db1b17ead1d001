"""The generated sets: the same everywhere, no held-out sentence trained on, answers that follow from prompts."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from contextlib import closing

import pytest

from tunelab import DataSpec, read_data
from tunelab.data.builtin import BUILTIN, DESCRIPTIONS, card
from tunelab.data.sets import support_tickets, text_to_sql
from tunelab.data.sets.frames import Draw, of_part, read_frames
from tunelab.data.sets.shop import shop, shop_database
from tunelab.errors import UserError

# the rows must be these on every version of Python: a run is repeated from the name of its set
SHA256 = {
    "support-tickets": "532335b440a3d5a0305e92891dd66da11c8fb38ac2157cb87b39db8ee2aa5e3b",
    "text-to-sql": "70dac5b505535af13b6f7f78bf772836f1c01c8a2b89d5867d3a326eb1d89802",
}
GENERATED = ("support-tickets", "text-to-sql")


@pytest.fixture(scope="module")
def sides():
    """Train and held-out rows of both sets."""
    return {name: (BUILTIN[name].rows(), BUILTIN[name].heldout()) for name in GENERATED}


@pytest.fixture(scope="module")
def database():
    with closing(shop_database()) as opened:
        yield opened


def fields(row: dict) -> dict:
    return json.loads(row["completion"])


@pytest.mark.parametrize("name", GENERATED)
def test_rows_are_the_same_everywhere(name, sides):
    assert hashlib.sha256(json.dumps(sides[name]).encode()).hexdigest() == SHA256[name]


def test_draws_are_those_of_the_generator_that_python_promises_to_keep():
    draw = Draw(1)
    assert [draw.number(1, 6) for _ in range(10)] == [1, 6, 5, 2, 3, 3, 4, 5, 1, 1]
    assert sorted(draw.shuffled("abcdef")) == list("abcdef")
    assert {draw.number(1, 3) for _ in range(100)} == {1, 2, 3}


@pytest.mark.parametrize("name", GENERATED)
def test_there_are_enough_rows_and_no_prompt_stands_twice(name, sides):
    train, heldout = sides[name]
    assert len(train) >= 3000
    assert len(heldout) >= 400
    for row in (*train, *heldout):
        assert list(row) == ["prompt", "completion"]
        assert not re.search(r"[{}]", row["prompt"]), "a slot was left open"
    assert len({row["prompt"].casefold() for row in (*train, *heldout)}) == len(train) + len(heldout)


def test_every_family_of_ticket_sentences_has_forty_frames_and_none_stands_twice():
    frames = read_frames("support_tickets")
    families = Counter()
    for family, entries in frames.items():
        families[family.split()[0]] += len(entries)
    families["order"] += families.pop("no")
    families["aside"] += families.pop("remark")
    families["problem"] += families.pop("situation")
    assert set(families) == set("product greeting mention aside problem action urgency sentiment order closing".split())
    assert min(families.values()) >= 40, families
    everything = [entry for entries in frames.values() for entry in entries]
    assert len(set(everything)) == len(everything)


@pytest.mark.parametrize("file", ["support_tickets", "text_to_sql", "names", "shop"])
def test_parts_share_no_entry_and_each_has_some_of_every_family(file):
    for family, entries in read_frames(file).items():
        train, heldout = of_part(entries, "train"), of_part(entries, "heldout")
        assert train, family
        assert heldout, family
        assert not set(train) & set(heldout), family
        assert len(train) + len(heldout) == len(entries)


@pytest.mark.parametrize(("name", "file"), zip(GENERATED, ("support_tickets", "text_to_sql"), strict=True))
def test_no_sentence_of_one_part_stands_in_a_row_of_the_other(name, file, sides):
    """Sentences without slots as they are; slips may have hidden some, but not made one of the other part."""
    for part, rows in zip(("heldout", "train"), sides[name], strict=True):
        other = {
            entry
            for family, entries in read_frames(file).items()
            if not family.startswith("product")
            for entry in of_part(entries, part)
            if "{" not in entry and len(entry) > 12
        }
        text = "\n".join(row["prompt"] for row in rows)
        assert other
        assert not [entry for entry in other if entry in text]


def test_names_and_places_of_held_out_tickets_were_never_trained_on(sides):
    train, heldout = ("\n".join(row["prompt"] for row in rows) for rows in sides["support-tickets"])
    for family in ("first", "last", "place"):
        entries = [entry.rpartition(": ")[2] for entry in read_frames("names")[family]]
        for text, part in ((train, "heldout"), (heldout, "train")):
            assert not [entry for entry in of_part(entries, part) if re.search(rf"\b{entry}\b", text)]
    ids = [{fields(row)["order_id"] for row in rows} - {None} for rows in sides["support-tickets"]]
    assert not ids[0] & ids[1]


def test_tickets_have_the_fixed_fields_and_every_value_in_both_parts(sides):
    allowed = {
        "product": support_tickets.PRODUCTS,
        "urgency": support_tickets.URGENCIES,
        "sentiment": support_tickets.SENTIMENTS,
        "action": support_tickets.ACTIONS,
    }
    for rows in sides["support-tickets"]:
        answers = [fields(row) for row in rows]
        assert {tuple(answer) for answer in answers} == {(*allowed, "order_id")}
        for name, values in allowed.items():
            counts = Counter(answer[name] for answer in answers)
            assert set(counts) == set(values)
            assert max(counts.values()) < 3 * min(counts.values()), name
        assert 0.2 < sum(answer["order_id"] is None for answer in answers) / len(answers) < 0.3


def test_an_order_id_stands_in_its_e_mail_and_so_do_the_sentences_of_its_fields(sides):
    """Read backwards: which labels do the sentences in an e-mail stand for? Each row's own, and no others."""
    frames = read_frames("support_tickets")
    plain = {
        family: [entry for entry in entries if "{" not in entry]
        for family, entries in frames.items()
        if family.split()[0] in ("urgency", "sentiment", "action")
    }
    seen = Counter()
    for row in (*sides["support-tickets"][0], *sides["support-tickets"][1]):
        answer, email = fields(row), f" {' '.join(row['prompt'].split())} "
        assert answer["order_id"] is None or answer["order_id"] in email
        for family, entries in plain.items():
            field, label = family.split()
            if any(f" {entry} " in email for entry in entries):
                assert answer[field] == label, (family, email)
                seen[family] += 1
        aliases = [a for a in frames[f"product {answer['product']}"] if a in email]
        seen["product"] += bool(aliases)
    assert all(seen[family] > 50 for family in plain), seen
    assert seen["product"] > 2500  # the others have a slip in it


def test_many_tickets_have_a_slip_another_product_or_another_number(sides):
    rows = sides["support-tickets"][0]
    aliases = {p: read_frames("support_tickets")[f"product {p}"] for p in support_tickets.PRODUCTS}
    number = r"\b(?:[A-Z]{1,3}\d*-?\d{4,}|20\d\d-\d{5}|\d{4}/\d\d|\d{6})(?![\w/-])"
    other_product = sum(
        any(a in row["prompt"] for p, names in aliases.items() if p != fields(row)["product"] for a in names)
        for row in rows
    )
    other_number = sum(bool(set(re.findall(number, row["prompt"])) - {fields(row)["order_id"]}) for row in rows)
    assert other_product > 0.25 * len(rows)
    assert other_number > 0.25 * len(rows)


def test_every_query_runs_and_says_something(sides, database):
    for rows in sides["text-to-sql"]:
        for row in rows:
            assert text_to_sql.says_something(database, row["completion"]), row
            assert database.execute(row["completion"]).fetchall()[0][0] not in (None, 0), row


def test_a_result_cut_off_at_a_tie_is_not_asked_for(database):
    tied = "SELECT name FROM customers ORDER BY country DESC LIMIT 3"
    assert not text_to_sql.says_something(database, tied)
    assert text_to_sql.says_something(database, "SELECT name FROM customers ORDER BY id LIMIT 3")
    assert not text_to_sql.says_something(database, "SELECT name FROM customers WHERE id < 0")
    assert not text_to_sql.says_something(database, "SELECT SUM(stock) FROM products WHERE id < 0")


def test_what_a_query_names_stands_in_its_question(sides):
    for rows in sides["text-to-sql"]:
        for row in rows:
            question = row["prompt"].rpartition("Question: ")[2]
            for value in re.findall(r"'([^'%]+)'", row["completion"]):
                if not re.fullmatch(r"\d{4}-\d\d-\d\d", value):
                    assert value in question, row
                else:
                    assert value[:4] in question, row


def test_held_out_questions_ask_about_people_places_products_and_months_that_training_questions_do_not(sides):
    def named(rows: list[dict], pattern: str) -> set[str]:
        return {value for row in rows for value in re.findall(pattern, row["completion"])}

    train, heldout = sides["text-to-sql"]
    for pattern in (r"city = '([^']+)'", r"c\.name = '([^']+)'", r"p\.name = '([^']+)'", r"'(\d{4}-\d\d)"):
        assert named(heldout, pattern), pattern
        assert not named(train, pattern) & named(heldout, pattern), pattern


def test_the_shop_is_the_same_each_time_and_its_rows_point_at_each_other(database):
    assert shop() == shop()
    orphans = (
        "SELECT COUNT(*) FROM orders WHERE customer_id NOT IN (SELECT id FROM customers)",
        "SELECT COUNT(*) FROM order_items WHERE order_id NOT IN (SELECT id FROM orders)",
        "SELECT COUNT(*) FROM order_items WHERE product_id NOT IN (SELECT id FROM products)",
        "SELECT COUNT(*) FROM reviews WHERE product_id NOT IN (SELECT id FROM products)",
        "SELECT COUNT(*) FROM reviews WHERE stars NOT BETWEEN 1 AND 5",
    )
    assert [database.execute(query).fetchone() for query in orphans] == [(0,)] * len(orphans)
    for table, column in (("customers", "name"), ("products", "name"), ("products", "price")):
        twice = f"SELECT COUNT(*) - COUNT(DISTINCT {column}) FROM {table}"
        assert database.execute(twice).fetchone() == (0,), table


@pytest.mark.parametrize("name", BUILTIN)
def test_every_set_has_a_card_with_figures_and_what_it_cannot_tell(name):
    text = card(name).markdown()
    assert text.startswith(f"# {name}\n\n{DESCRIPTIONS[name]}")
    assert len(card(name).limits) >= 2
    for heading in (
        "**Source**",
        "**Licence**",
        "**Size**",
        "**How it was made**",
        "**Held out**",
        "nearest neighbour",
    ):
        assert heading in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1


@pytest.mark.parametrize("name", GENERATED)
def test_a_card_counts_the_rows_there_are(name, sides):
    assert (card(name).train_rows, card(name).heldout_rows) == tuple(map(len, sides[name]))


@pytest.mark.parametrize("name", GENERATED)
def test_a_card_says_what_tuning_reaches_and_it_is_more_than_anything_else_does(name):
    shown = card(name)
    assert f"the first {shown.answered_rows} held-out rows" in shown.markdown()
    main = BUILTIN[name].metrics[0]  # the one to report first
    by = {figure.answered_by: figure.value for figure in shown.figures if figure.metric == main}
    tuned = by.pop("tuned, 250 steps")
    assert {"base", "base, format explained", "base, format explained and 3 examples", "nearest neighbour"} <= by.keys()
    assert tuned > max(by.values())


def test_a_card_of_a_set_that_is_not_there_is_a_mistake():
    with pytest.raises(UserError, match=r"no built-in set 'tickets'.*support-tickets"):
        card("tickets")


@pytest.mark.parametrize("name", GENERATED)
def test_its_own_held_out_rows_are_what_is_held_out(name, sides):
    split = read_data(DataSpec(source=name))
    train, heldout = sides[name]
    assert {example.prompt for example in split.train} == {row["prompt"] for row in train}
    assert {example.prompt for example in split.heldout} == {row["prompt"] for row in heldout}
    assert split.notes[-1] == f"held out: the test part of {name}"
