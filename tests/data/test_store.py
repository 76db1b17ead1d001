"""Examples on the disk."""

from __future__ import annotations

import numpy

from tunelab.data.examples import Example, Message
from tunelab.data.store import Stored


def test_a_row_on_the_disk_is_what_it_was():
    said = Message("assistant", "x", learned=False, extra='{"a": 1}')
    rows = [
        Example((Message("system", "Kurz, 🙂."), Message("user", "a\0b"), said), row=3, group="Änne"),
        Example(text=numpy.str_("a text"), row=2**40, whole=False),
        Example((Message("user", numpy.str_("q")), Message("assistant", "a" * 100_000))),
    ]
    stored = Stored(rows)
    assert list(stored) == rows
    assert [stored[place] for place in (2, 0, 1)] == [rows[place] for place in (2, 0, 1)]
    assert type(stored[1].text) is str
