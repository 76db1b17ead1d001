"""The cards that say what answers: two to four columns, each the base or a run, with what stands before the prompt."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import gradio as gr

from playground import views
from playground.columns import (
    BASE,
    FEWEST,
    MOST,
    MOST_EXAMPLES,
    Pick,
    answering,
    find,
    fitting,
    has_strength,
    problems,
    results_of,
)
from playground.english import compare as say
from playground.parts.choices import OfTheMoment
from playground.parts.events import PRIVATE
from playground.parts.hidden import hidden
from playground.parts.shared import Shared

FIELDS = 6  # of a pick


@dataclass(frozen=True)
class Card:
    """One column's settings."""

    who: gr.Dropdown
    at: gr.Dropdown
    system: gr.Dropdown
    words: gr.Textbox
    examples: gr.Slider
    strength: gr.Slider
    remove: gr.Button
    problem: gr.HTML

    @property
    def fields(self) -> list[Any]:
        """In the order of a pick's fields."""
        return [self.who, self.at, self.system, self.words, self.examples, self.strength]


@dataclass(frozen=True)
class Held:
    """What the page holds beside the cards, so that it always belongs to what is in them: what the server keeps would
    be of another moment."""

    count: gr.Textbox  # of the cards that are used
    laid: gr.Textbox  # what the page itself put in, as `written`; where the cards say something else, they were chosen
    offered: gr.Textbox  # what the page would put in, and in place of what


@dataclass(frozen=True)
class Editor:
    """The cards, and what is held beside them."""

    cards: list[Card]
    held: Held
    add: gr.Button

    @property
    def asked(self) -> list[Any]:
        """As inputs, what `picks` is made of."""
        return [self.held.count, *(field for card in self.cards for field in card.fields)]

    @property
    def outputs(self) -> list[Any]:
        """What `stand` fills in."""
        shown = [part for card in self.cards for part in (card.problem, *card.fields)]
        return [self.held.count, self.held.laid, self.add, *shown]


def hold() -> Held:
    """What is held beside the cards; stands outside of the rooms, for what stands in one that was not opened yet
    changes before the rest of an answer is there."""
    first = written([Pick()] * FEWEST)
    return Held(hidden("columns-count", str(FEWEST)), hidden("columns-laid", first), hidden("columns-offered"))


def lay_out(number: int) -> Card:
    """A column's card; stands inside its `gr.Column`."""
    with gr.Row(elem_classes="tight who-row"):
        who = gr.Dropdown(
            [(say.BASE, BASE)],
            value=BASE,
            label=say.WHO.format(number=number + 1),
            elem_id=f"who-{number}",
            interactive=True,
            min_width=160,
        )
    with gr.Accordion(say.MORE, open=False, elem_id=f"more-{number}", elem_classes="more"):
        at = OfTheMoment([("its result", "")], value="", label=say.AT, info=say.AT_HELP, elem_classes="if-at")
        kinds = [(words, name) for name, words in say.SYSTEMS.items()]
        system = gr.Dropdown(kinds, value="trained", label=say.SYSTEM_KIND, info=say.SYSTEM_KIND_HELP)
        words = gr.Textbox(label=say.SYSTEM_WORDS, info=say.SYSTEM_WORDS_HELP, lines=2, elem_classes="if-words")
        examples = gr.Slider(0, MOST_EXAMPLES, 0, step=1, label=say.EXAMPLES_SHOWN, info=say.EXAMPLES_SHOWN_HELP)
        strength = gr.Slider(
            0,
            1.5,
            1,
            step=0.05,
            label=say.STRENGTH,
            info=say.STRENGTH_HELP,
            elem_classes="if-strength",
            elem_id=f"strength-{number}",
        )
        remove = gr.Button(say.REMOVE, size="sm", elem_id=f"remove-{number}", elem_classes="if-remove")
    problem = gr.HTML(
        views.problem_html("", ["used"] if number < FEWEST else []), elem_id=f"problem-{number}", elem_classes="problem"
    )
    return Card(who, at, system, words, examples, strength, remove, problem)


def picks(values: Sequence[Any]) -> list[Pick]:
    """What `Editor.asked` says: the columns that are used."""
    count, fields = int(values[0]), values[1:]
    each = [fields[start : start + FIELDS] for start in range(0, len(fields), FIELDS)]
    return [
        Pick(who or BASE, at or "", system or "trained", words or "", int(examples or 0), float(strength))
        for who, at, system, words, examples, strength in each[:count]
    ]


def stand(
    editor: Editor, root: Any, chosen: Sequence[Pick], before: Sequence[Pick] = (), laid: str | None = None
) -> dict[Any, Any]:
    """The cards with these columns in them. `before`: what they hold already, which is not written over, because
    somebody may be writing there. `laid`: what is said of them from now on; None: what was said."""
    choices = [(say.BASE, BASE), *views.run_choices(answering(root))]
    said = problems(chosen, root)
    changes: dict[Any, Any] = {editor.add: gr.update(interactive=len(chosen) < MOST)}
    if len(chosen) != len(before):
        changes[editor.held.count] = str(len(chosen))
    if laid is not None:
        changes[editor.held.laid] = laid
    for number, card in enumerate(editor.cards):
        used = number < len(chosen)
        parts = _parts(chosen[number], root, len(chosen) > FEWEST) if used else []
        changes[card.problem] = views.problem_html(said[number] if used else "", parts)
        if used:
            changes |= _fields(card, fitting(chosen[number], root), choices, root, next(iter(before[number:]), None))
    return changes


def written(chosen: Sequence[Pick]) -> str:
    """Columns, as `Editor.laid` says them."""
    return json.dumps([astuple(pick) for pick in chosen])


def _parts(pick: Pick, root: Any, removable: bool) -> list[str]:
    """What of a card that is used there is to set."""
    run = find(pick.who, root)
    there = {
        "used": True,
        "remove": removable,
        "at": len(results_of(run)) > 1,
        "words": pick.system == "own",
        "strength": has_strength(run),
    }
    return [name for name, is_there in there.items() if is_there]


def _fields(card: Card, pick: Pick, choices: list[tuple[str, str]], root: Any, before: Pick | None) -> dict[Any, Any]:
    """What of a card is another value, or has other choices."""
    held = astuple(before) if before else (None,) * FIELDS  # nothing is None
    each = zip(card.fields, astuple(pick), held, strict=True)
    changes: dict[Any, dict[str, Any]] = {field: {"value": value} for field, value, was in each if value != was}
    for field, there in ((card.who, choices), (card.at, results_of(find(pick.who, root)))):
        changes[field] = {**changes.get(field, {}), "choices": there}
    return {field: gr.update(**change) for field, change in changes.items()}


def start(root: Any, run_id: str | None) -> list[Pick]:
    """The columns one begins with: the base and a run, that one or the newest."""
    runs = answering(root)
    run = next((run for run in runs if run.id == run_id), runs[0] if runs else None)
    return [Pick(), Pick(run.id if run else BASE)]


def still_there(chosen: Sequence[Pick], begun: Sequence[Pick], root: Any) -> list[Pick]:
    """Columns that somebody chose, without those whose run is gone; where too few are left, with those that one begins
    with."""
    left = [fitting(pick, root) for pick in chosen if not pick.who or find(pick.who, root)]
    others = [pick for pick in begun if pick.who not in {one.who for one in left}]
    return [*left, *others, *begun][: max(len(left), FEWEST)]


# puts in what is offered
LAY = "(...given) => window.playgroundCards.lay(...given)"


def wire(editor: Editor, shared: Shared) -> Any:
    """Cards follow what is chosen in them, and the run that is chosen unless somebody chose by hand; the event after
    which they stand."""
    root, held = shared.jobs.root, editor.held

    def follow(run_id: str | None, laid: str, *values: Any) -> dict[Any, Any]:
        there = picks(values)
        begun, now = start(root, run_id), [fitting(pick, root) for pick in there]
        by_hand = laid != written(there) and any(pick != Pick() for pick in now)
        offer = _offer(now, still_there(there, begun, root) if by_hand else begun, by_hand)
        return {**stand(editor, root, there, there), held.offered: offer or gr.skip()}

    def added(*values: Any) -> dict[Any, Any]:
        there = picks(values)
        unused = [run.id for run in answering(root) if run.id not in {pick.who for pick in there}]
        return stand(editor, root, [*there, Pick(unused[0] if unused else BASE)][:MOST], there)

    for number, card in enumerate(editor.cards):

        def removed(*values: Any, number: int = number) -> dict[Any, Any]:
            there = picks(values)
            return stand(editor, root, [*there[:number], *there[number + 1 :]], there)

        card.remove.click(removed, editor.asked, editor.outputs, queue=False, **PRIVATE)
    editor.add.click(added, editor.asked, editor.outputs, queue=False, **PRIVATE)
    held.offered.change(None, [held.offered, *editor.asked], [held.laid, *editor.asked], js=LAY)
    chosen = [event for card in editor.cards for event in (card.who.input, card.system.input)]
    inputs = [shared.chosen, held.laid, *editor.asked]
    # `change`: others put columns in, and may have done so while an older moment was answered
    return shared.keep(follow, inputs, [*editor.outputs, held.offered], *chosen, held.count.change, held.laid.change)


def _offer(before: list[Pick], after: list[Pick], by_hand: bool) -> str:
    """For the page to put in by itself: somebody may choose before this arrives. Empty: it is there already. The same
    offer made again is another one, and what it says was laid is new, so that the cards are looked at again."""
    if before == after:
        return ""
    each = {name: [astuple(pick) for pick in picks] for name, picks in (("before", before), ("after", after))}
    moment = time.monotonic_ns()
    return json.dumps({**each, "laid": f"by hand, {moment}" if by_hand else written(after), "moment": moment})
