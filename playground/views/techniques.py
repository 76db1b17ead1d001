"""A small picture of each technique: a layer of the model, and where in it what is trained stands. One style for all:
the frozen model in the text's colour, what is trained in the accent, on any background. Knows nothing of Gradio."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunelab import TECHNIQUES
from tunelab.measure.markup import render

if TYPE_CHECKING:
    from markupsafe import Markup

# what each picture shows, for those who can't see it
WORDS = {
    "full": "Attention and MLP themselves are trained, in every layer.",
    "lora": "Beside attention and MLP stand two thin matrices, A and B. They are trained; both blocks are frozen.",
    "prefix": "Before the text's keys and values, attention has trained ones, in every layer; the blocks are frozen.",
    "prompt": "Before the text's tokens stand trained ones, at the input only; the blocks are frozen.",
    "bottleneck": "Behind attention and behind MLP stands a narrow network that is trained; the blocks are frozen.",
    "ia3": "Attention's keys and values and the MLP's middle are multiplied by trained factors; all else is frozen.",
}
QUANTISED = "The frozen weights are kept in four bits."


def technique_picture(kind: str, quantized: bool = False) -> Markup:
    """An `<svg>` of the technique of that kind, 220 by 120, on a base that is quantised or not.

    Raises:
        KeyError: there is no such technique.
        ValueError: full fine-tuning of a quantised base, which there isn't.
    """
    if kind == "full" and quantized:
        raise ValueError("a quantised base can't be trained as a whole")
    title = f"Q{TECHNIQUES[kind].title}" if kind == "lora" and quantized else TECHNIQUES[kind].title
    words = f"{title}. {WORDS[kind]}{f' {QUANTISED}' if quantized else ''}"
    return render("playground", "technique.svg", kind=kind, quantized=quantized, title=title, words=words)
