"""Built-in sets, one module each; `data/builtin.py` lists them.

    python_docs.py, general.py                 text that is there already, read
    support_tickets.py, shop.py, text_to_sql.py    rows made by seeded code from the sentences in the .txt files
    frames.py  those files, and random choices that are the same everywhere      card.py  what a set says of itself

Uses `errors` and the standard library.
"""
