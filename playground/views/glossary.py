"""Words that explain themselves, for every room: a term with its sentence on hover and on focus, a text whose terms are
marked so, and the whole glossary. Made of HTML and CSS alone (`words.css`); every text is shown as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playground.english import learn as say
from tunelab.glossary import Entry, Segment, entry, glossary, linked
from tunelab.measure.markup import render

if TYPE_CHECKING:
    from markupsafe import Markup

    from playground.views.notebooks import Notebook


def term(word: str, shown: str | None = None) -> Markup:
    """A word that explains itself, written as it is given, or as `shown`.

    Raises:
        KeyError: the glossary does not have it.
    """
    return render("playground", "term.html", pieces=[Segment(shown or word, entry(word))])


def explained(text: str, seen: set[str] | None = None) -> Markup:
    """A text in which each term explains itself where it stands first. `seen` as in `linked`: one set for all texts of
    a page marks every term once on the page."""
    return render("playground", "term.html", pieces=linked(text, seen))


def glossary_html(wanted: str = "") -> Markup:
    """The glossary by themes, each entry with an anchor (`term-` and `Entry.anchor`); of it, what has all words of
    `wanted`."""
    words = wanted.casefold().split()
    themes: dict[str, list[Entry]] = {}
    for one in glossary().values():
        if all(word in " ".join((one.term, *one.spellings, one.short)).casefold() for word in words):
            themes.setdefault(one.theme, []).append(one)
    return render("playground", "glossary.html", themes=themes, nothing=say.NONE_FITS.format(wanted=wanted))


def about_html(notebook: Notebook, seen: set[str] | None = None) -> Markup:
    """What a notebook is about and how long it takes, its terms explained."""
    return render(
        "playground",
        "notebook_about.html",
        terms=explained(notebook.aim, seen),
        takes=notebook.minutes if notebook.seconds is None else say.TAKES.format(minutes=notebook.minutes),
    )
