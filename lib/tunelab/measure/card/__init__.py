"""The card of a run: one page that shows somebody who was not there what was trained on what, how well it went and what
that can't tell, and the same facts as JSON.

    run ──> gather.card_of() ──> RunCard (facts.py) ──> page.page_of() ──> one HTML file

`of_run`, `of_data` and `of_answers` read what there is; a run that failed, was never measured or whose data is gone has
a card as well. Uses `run`, `data` and the other rooms of `measure`; imports torch only to read a tokenizer.
"""

from tunelab.measure.card.facts import RunCard
from tunelab.measure.card.gather import card_of
from tunelab.measure.card.page import page_of
from tunelab.measure.card.writing import report

__all__ = ["RunCard", "card_of", "page_of", "report"]
