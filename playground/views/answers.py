"""What stands under an answer."""

from __future__ import annotations

from playground.views.texts import plain_markdown
from tunelab import Answer


def answer_footer(answer: Answer) -> str:
    """What stands under an answer, as Markdown."""
    state = {None: "…", "end of turn": "ended by itself", "length": "cut at the length", "cancelled": "cancelled"}
    speed = f"{answer.tokens} tokens in {answer.seconds:.1f} s" if answer.tokens else ""
    facts = " · ".join(part for part in (speed, state[answer.stop_reason]) if part)
    return f"{facts}  \n{plain_markdown(answer.provenance.text)}"
