"""The words of the data cards; `figures.json` beside this file has their numbers."""

from __future__ import annotations

from tunelab.data.sets.card import Card

CARDS = (
    Card(
        name="python-docs",
        summary="Python's standard library: what a function does, answered by its documentation.",
        source="The docstrings of the interpreter in use: public functions, classes and methods of a fixed list of "
        "modules, by the authors of Python.",
        licence="Python Software Foundation License 2.0",
        made="Question by template, four of them; answer: the first paragraph of the docstring, signature lines left "
        "out, 20 to 400 characters, equal texts once. Nothing is downloaded.",
        held_out="A share of the objects; the set has no split of its own.",
        limits=(
            "Another version of Python has other rows: compare figures only on one version.",
            "The model may have read these texts before. What tuning shows here is a change of voice, not new "
            "knowledge: a docstring that was held out can't be known.",
            "One reference for each question: an answer in other words is right and scores low.",
        ),
    ),
    Card(
        name="general",
        summary="General instructions of 18 kinds, from arithmetic to rewriting, to mix into narrow training data.",
        source="Written for this project.",
        licence="Apache-2.0",
        made="Equally many instructions of each kind, none nearly the same as another.",
        held_out="A share of the rows; the set has no split of its own.",
        limits=(
            "It is meant for replay, not to teach anything: it is too small for that.",
            "English only, short answers only.",
            "Its floors say little: every answer is a text of its own.",
        ),
    ),
    Card(
        name="support-tickets",
        summary="A customer's e-mail, answered with JSON: product, urgency, sentiment, action and order id.",
        source="Made by code of this project, `data/sets/support_tickets.py`; no real customer wrote any of it.",
        licence="Apache-2.0",
        made="Seeded: fields first, then a sentence for each, in any order, between sentences that say nothing of "
        "them. More than 600 sentences, at least 40 of each family; other products and other numbers of the same "
        "shape, refusals, spelling slips, fields that are missing. Urgency is high when the writer can't wait, low "
        "when it can wait, normal when the usual time will do or nothing is said; sentiment is about the shop, and "
        "neutral when nothing is said; order_id is null when no order's number is given.",
        held_out="Every fourth sentence, name and place of each family; products are a closed list of twelve.",
        limits=(
            "Sentences are put together, not written in one go: real mail is longer, less clear, and its fields hang "
            "together (an angry writer is more often in a hurry). A score here is no score on your mail.",
            "Labels are equally frequent, which they never are.",
            "English with foreign greetings and names only.",
        ),
    ),
    Card(
        name="text-to-sql",
        summary="A question about a shop, answered with the SQLite query that answers it.",
        source="Made by code of this project, `data/sets/text_to_sql.py`; the shop and its people are invented.",
        licence="Apache-2.0",
        made="35 kinds of query with 10 to 14 questions each, filled with what the shop's database holds, seeded. "
        "Every query runs and returns something; where a query cuts a ranking off, no tie decides.",
        held_out="Every fourth question of each kind, and names, cities, products and dates of their own. Categories, "
        "states of an order and numbers are the same.",
        limits=(
            "One schema, known from training: nothing is said about other databases.",
            "The kinds of query are those of the training rows: nothing is said about new ones.",
            "A wrong query can return the right rows by chance, and is then counted as right.",
        ),
    ),
)
