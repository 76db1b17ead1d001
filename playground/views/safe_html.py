"""Markup that others made, so that it can be shown: what is in it as text, tables, pictures and drawings stays; what
could run, fetch, or reach beyond its place goes. What goes is told at its place.

`bleach` decides what may stay, from the lists below and nothing else. What is done before it serves the reader, not
safety: without it the text of a script would stand on the page.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from bleach.sanitizer import Cleaner
    from bs4 import BeautifulSoup

TEXT = """a b blockquote br caption code dd del details div dl dt em h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark ol p pre
small span strong sub summary sup table tbody td tfoot th thead tr ul""".split()
# no title, style, use, image, foreignObject or animation: they hold markup, refer to something, or change attributes
DRAWING = "svg g path line polyline polygon rect circle ellipse text tspan".split()
DRAWN = """d points x y x1 y1 x2 y2 cx cy r rx ry width height transform viewBox preserveAspectRatio fill stroke opacity
fill-opacity stroke-opacity stroke-width stroke-dasharray stroke-linejoin stroke-linecap text-anchor dominant-baseline
font-size font-weight font-family""".split()
EVERYWHERE = {"class", "style", "role", "aria-label"}
OTHERS = {"a": {"href", "target", "rel"}, "img": {"src", "alt"}, "td": {"colspan", "rowspan"}}
OTHERS["th"] = OTHERS["td"]
# colours are not among them: they would be unreadable in light or in dark
STYLES = "text-align vertical-align width height max-width font-weight font-style font-variant-numeric".split()
# a drawing in an img is a picture: browsers run nothing in it and fetch nothing for it
PICTURE = re.compile(r"data:image/(png|jpeg|gif|webp|svg\+xml);base64,[A-Za-z0-9+/=\s]+")
ADDRESS = re.compile(r"https?://", re.I)
# what notebooks and their code have: cells, letters of highlighting, colours of a terminal, the charts' own
CLASSES = re.compile(
    r"(?:[a-z]{1,2}\d?|grid|name|dataframe|highlight|hl-\w+|ansi-[\w-]+|(?:output|input|cell|text)\w*)\Z"
)
DANGEROUS_STYLE = re.compile(r"url|\\|@|expression", re.I)
# elements whose content is no text for people, and the word for them
LEFT_OUT = {
    **dict.fromkeys(("script", "noscript"), "a script"),
    **dict.fromkeys(("iframe", "object", "embed", "frame", "frameset", "applet", "portal"), "another page"),
    **dict.fromkeys(("form", "input", "button", "select", "textarea"), "a form"),
    **dict.fromkeys(("video", "audio"), "a recording"),
}
NO_ALT = "No description has been provided for this image"  # what nbconvert says of pictures without words
SILENT = ("style", "title", "head", "link", "meta", "base", "template", "foreignobject")


def safe(html: str) -> Markup:
    """The markup with nothing in it that runs, fetches, or has an address of its own on the page."""
    from bs4 import BeautifulSoup

    tree = BeautifulSoup(html, "html.parser")
    _leave_out(tree)
    _mend_links(tree)
    for element in tree.find_all(class_=True):
        kept = [str(name) for name in element.get_attribute_list("class") if CLASSES.match(str(name))]
        del element["class"]
        if kept:
            element["class"] = " ".join(kept)
    return Markup(_cleaner().clean(str(tree)))


def _leave_out(tree: BeautifulSoup) -> None:
    """What can't be shown gives way to a word about it."""
    for element in tree.find_all(SILENT):
        element.decompose()
    for element in tree.find_all(list(LEFT_OUT)):
        if not element.decomposed:
            # beside a drawing, not in it: markup would end it
            (element.find_parent("svg") or element).insert_after(_word(tree, LEFT_OUT[element.name]))
            element.decompose()
    for picture in tree.find_all("img"):
        alt = str(picture.get("alt", "")).replace(NO_ALT, "").strip()
        if PICTURE.fullmatch(str(picture.get("src", ""))):
            picture["alt"] = alt or "a picture without a description"
        else:
            picture.replace_with(_word(tree, f"a picture that lies elsewhere{f' ({alt})' if alt else ''}"))


def _word(tree: BeautifulSoup, what: str) -> Any:
    word = tree.new_tag("em", attrs={"class": "output_left_out"})
    word.string = f"[left out here: {what}]"
    return word


def _mend_links(tree: BeautifulSoup) -> None:
    """Links to the web open beside the page and tell it nothing; others lead nowhere here, and are words."""
    for link in tree.find_all("a"):
        if ADDRESS.match(str(link.get("href", ""))):
            link["target"], link["rel"] = "_blank", "noopener noreferrer"
        else:
            link.unwrap()


@cache
def _cleaner() -> Cleaner:
    from bleach.css_sanitizer import CSSSanitizer
    from bleach.sanitizer import Cleaner

    return Cleaner(
        tags={*TEXT, *DRAWING},
        attributes=_allowed,
        protocols={"http", "https", "data"},  # and of these only what `_allowed` takes
        strip=True,
        strip_comments=True,
        css_sanitizer=CSSSanitizer(allowed_css_properties=STYLES, allowed_svg_properties=[]),
    )


def _allowed(tag: str, name: str, value: str) -> bool:
    if name == "href":
        return tag == "a" and bool(ADDRESS.match(value))
    if name == "src":
        return tag == "img" and bool(PICTURE.fullmatch(value))
    if name == "style":
        return not DANGEROUS_STYLE.search(value)
    if name == "class":
        return all(CLASSES.match(word) for word in value.split())
    known = name in EVERYWHERE or name in OTHERS.get(tag, ()) or (tag in DRAWING and name in DRAWN)
    return known and "url(" not in value.casefold()
