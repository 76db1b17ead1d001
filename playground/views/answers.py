"""What stands under an answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from playground.english import compare as say
from playground.views.texts import plain_markdown
from tunelab import Answer


def answer_footer(answers: Sequence[Answer]) -> str:
    """What stands under a column's answers, one of each seed, as Markdown."""
    tokens, seconds = sum(one.tokens for one in answers), max(one.seconds for one in answers)
    ends = Counter(say.ENDED[one.stop_reason] for one in answers)
    said = [end if len(answers) == 1 else f"{count} {end}" for end, count in ends.items()]
    facts = [*([say.SPEED.format(tokens=f"{tokens:,}", seconds=seconds)] if tokens else []), *said]
    first = answers[0].provenance
    seeds = f"seeds {', '.join(str(one.seed) for one in answers)}"
    whole = first if len(answers) == 1 else replace(first, decoding=f"{first.decoding.partition(', seed')[0]}, {seeds}")
    return f"{' · '.join(facts)}  \n{plain_markdown(whole.text)}"
