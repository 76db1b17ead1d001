"""A small picture of each technique: a layer of the model, and where in it what is trained stands. One style for all:
the frozen model in the text's colour, what is trained in the accent, on any background. Knows nothing of Gradio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playground.english import train as say
from tunelab import TECHNIQUES
from tunelab.measure.markup import render

if TYPE_CHECKING:
    from markupsafe import Markup


def technique_picture(kind: str, quantized: bool = False) -> Markup:
    """An `<svg>` of the technique of that kind, 220 by 120, on a base that is quantised or not.

    Raises:
        KeyError: there is no such technique.
        ValueError: full fine-tuning of a quantised base, which there isn't.
    """
    if kind == "full" and quantized:
        raise ValueError("a quantised base can't be trained as a whole")
    title = f"Q{TECHNIQUES[kind].title}" if kind == "lora" and quantized else TECHNIQUES[kind].title
    words = f"{title}. {say.PICTURES[kind]}{f' {say.PICTURE_QUANTISED}' if quantized else ''}"
    return render("playground", "technique.svg", kind=kind, quantized=quantized, words=words, say=say.PICTURE_WORDS)
