"""The form of the data: where rows come from, which column plays which role, what is held out; and what it shows of the
rows that were found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from playground import views
from playground.chosen_rows import builtin_of
from playground.english import data as say
from playground.forms import number
from playground.looking import Sight
from playground.parts.choices import rows_file
from playground.parts.hidden import hidden
from playground.troubles import Trouble
from tunelab import DataSpec

MAIN, TEXT = ("prompt", "completion", "messages"), ("text",)
OTHERS = ("input", "context", "system", "history", "choices", "label", "group")
# what holds for the rows it was chosen for, and how it stands before anything is chosen
UNCHOSEN: dict[str, Any] = {
    **{"learn": "instructions", "template": "", "system": "", "labels": "", "header": "auto", "limit": None},
    **{"heldout": "auto", "heldout_file": None},
}
SOON = ("pasted", "template", "system", "labels", "amount", "seed", "limit")  # written letter by letter


@dataclass(frozen=True)
class Form:
    """The widgets by name, a role's as 'role.prompt'; beside them where troubles are told, and what comes and goes."""

    widgets: dict[str, Any]
    troubles: dict[str, gr.HTML]
    panels: dict[str, gr.Column]  # of each kind of source
    cards: gr.HTML  # of the built-in sets
    fetch: gr.Button
    reload: gr.Button
    mapping: gr.HTML
    places: dict[str, gr.Column]  # of the roles that come and go with the shape of the rows
    amount: gr.Row
    heldout_file: gr.Column
    drawers: tuple[tuple[gr.Accordion, tuple[str, ...]], ...]  # each with the troubles that stand in it

    @property
    def outputs(self) -> list[Any]:
        """What `shown_as` fills in."""
        shown = [self.cards, self.mapping, self.amount, self.heldout_file, *self.places.values()]
        return [*shown, *(drawer for drawer, _names in self.drawers), *self.troubles.values(), *self.roles.values()]

    @property
    def roles(self) -> dict[str, gr.Dropdown]:
        return {name.partition(".")[2]: w for name, w in self.widgets.items() if name.startswith("role.")}


def lay_out() -> Form:
    """The form's widgets."""
    widgets, panels, (cards, fetch, reload) = _source()
    troubles = {"source": gr.HTML("", elem_id="data-trouble-source")}
    mapping = gr.HTML("", elem_id="data-mapping")
    with gr.Row(elem_classes="settings", equal_height=True):
        places = {role: _role(role, widgets, visible=role in MAIN[:2]) for role in (*MAIN, *TEXT)}
    troubles |= {role: _trouble(role) for role in (*MAIN, *TEXT)}
    widgets["learn"] = gr.Radio(
        [(title, name) for name, title in say.LEARNS.items()],
        value="instructions",
        label=say.LEARN,
        info=say.LEARN_HELP,
        elem_id="data-learn",
    )
    troubles["learn"] = _trouble("learn")
    with gr.Accordion(say.MORE_COLUMNS, open=False, elem_id="data-more") as more:
        inside = _more_columns(widgets)
    with gr.Accordion(say.HELDOUT_PART, open=False, elem_id="data-heldout-part") as part:
        amount, heldout_file = _heldout(widgets)
        troubles["heldout"] = _trouble("heldout")
    troubles |= inside | {"fixes": _trouble("fixes")}
    drawers = ((more, tuple(inside)), (part, ("heldout",)))
    return Form(widgets, troubles, panels, cards, fetch, reload, mapping, places, amount, heldout_file, drawers)


def _trouble(name: str) -> gr.HTML:
    return gr.HTML("", elem_id=f"data-trouble-{name}")


def _source() -> tuple[dict[str, Any], dict[str, Any], tuple[Any, Any, Any]]:
    """The widgets of each kind of source, in a panel of its own; the cards, and the buttons that fetch and reload."""
    widgets: dict[str, Any] = {}
    widgets["kind"] = gr.Radio(
        [(title, name) for name, title in say.KINDS.items()],
        value="builtin",
        label=say.SOURCE,
        info=say.SOURCE_HELP,
        elem_id="data-kind",
    )
    panels = {}
    with gr.Column(elem_id="data-panel-builtin") as panels["builtin"]:
        cards = gr.HTML(views.builtin_html("python-docs"), elem_id="data-cards")
        widgets["builtin"] = hidden("data-builtin", "python-docs")
    with gr.Column(visible=False, elem_id="data-panel-file") as panels["file"]:
        widgets["file"] = rows_file(say.FILE, elem_id="data-file")
    with gr.Column(visible=False, elem_id="data-panel-paste") as panels["paste"]:
        widgets["pasted"] = gr.Textbox(
            label=say.PASTE,
            info=say.PASTE_HELP,
            placeholder=say.PASTE_EXAMPLE,
            lines=6,
            max_lines=10,
            elem_id="data-pasted",
        )
    with gr.Column(visible=False, elem_id="data-panel-hub") as panels["hub"]:
        fetch = _hub(widgets)
    with gr.Column(visible=False, elem_id="data-panel-handed") as panels["handed"]:
        widgets["handed"] = gr.Radio(
            [], label=say.HANDED, info=say.HANDED_HELP, visible="hidden", elem_id="data-handed"
        )
        gr.HTML(views.handed_help_html(), elem_id="handed-help")
        reload = gr.Button(say.RELOAD, size="sm", elem_id="data-reload")
    return widgets, panels, (cards, fetch, reload)


def _hub(widgets: dict[str, Any]) -> gr.Button:
    widgets["hub"] = gr.Textbox(
        label=say.HUB, info=say.HUB_HELP, placeholder=say.HUB_EXAMPLE, max_lines=1, elem_id="data-hub"
    )
    with gr.Row(elem_classes="settings", equal_height=True):
        widgets["subset"] = gr.Textbox(label=say.SUBSET, info=say.HUB_PART_HELP, max_lines=1, min_width=120)
        widgets["split"] = gr.Textbox(label=say.SPLIT, info=say.HUB_PART_HELP, max_lines=1, min_width=120)
    return gr.Button(say.HUB_BUTTON, elem_id="data-fetch")


def _role(role: str, widgets: dict[str, Any], *, visible: bool = True) -> gr.Column:
    label, words = say.ROLES[role]
    with gr.Column(min_width=150, visible=visible, elem_id=f"data-place-{role}") as place:
        widgets[f"role.{role}"] = gr.Dropdown(
            [(say.NOT_USED, "")],
            value="",
            label=label,
            info=words,
            allow_custom_value=True,
            elem_id=f"data-role-{role}",
            min_width=140,
        )
    return place


def _more_columns(widgets: dict[str, Any]) -> dict[str, gr.HTML]:
    """Where the troubles of what stands here are told."""
    troubles = {}
    fields = DataSpec.model_fields
    widgets["template"] = gr.Textbox(
        label=say.TEMPLATE, info=fields["template"].description, max_lines=3, elem_id="data-template"
    )
    troubles["template"] = _trouble("template")
    widgets["system"] = gr.Textbox(
        label=say.SYSTEM, info=fields["system"].description, max_lines=3, elem_id="data-system"
    )
    widgets["labels"] = gr.Textbox(label=say.LABELS, info=say.LABELS_HELP, lines=2, max_lines=8, elem_id="data-labels")
    troubles["labels"] = _trouble("labels")
    with gr.Row(elem_classes="settings"):
        for role in OTHERS:
            with _role(role, widgets):
                troubles[role] = _trouble(role)
    with gr.Row(elem_classes="settings", equal_height=True):
        widgets["header"] = gr.Dropdown(
            [(title, name) for name, title in say.HEADERS.items()],
            value="auto",
            label=say.HEADER,
            info=fields["header"].description,
            elem_id="data-header",
            min_width=140,
        )
        widgets["limit"] = number(None, label=say.LIMIT, info=say.LIMIT_HELP, elem_id="data-limit", min_width=140)
    troubles |= {name: _trouble(name) for name in ("header", "limit")}
    return troubles


def _heldout(widgets: dict[str, Any]) -> tuple[gr.Row, gr.Column]:
    widgets["heldout"] = gr.Radio(
        [(title, name) for name, title in say.HELDOUTS.items()],
        value="auto",
        label=say.HELDOUT,
        info=say.HELDOUT_HELP,
        elem_id="data-heldout",
    )
    with gr.Row(visible=False, elem_classes="settings") as amount:
        widgets["amount"] = number(0.1, label=say.AMOUNT, info=say.AMOUNT_HELP, elem_id="data-amount", min_width=140)
        widgets["seed"] = number(0, label=say.SEED, info=say.SEED_HELP, elem_id="data-seed", min_width=140)
    with gr.Column(visible=False) as heldout_file:
        widgets["heldout_file"] = rows_file(say.HELDOUT_FILE, elem_id="data-heldout-file")
    return amount, heldout_file


def shown_as(form: Form, sight: Sight, values: dict[str, Any]) -> dict[Any, Any]:
    """The updates that show what is known, and what belongs to the values."""
    return {
        form.mapping: views.mapping_html(sight),
        form.cards: views.builtin_html(builtin_of(values)),
        form.amount: gr.update(visible=values["heldout"] == "amount"),
        form.heldout_file: gr.update(visible=values["heldout"] == "file"),
        **_troubles(form, sight.trouble),
        **_opened(form, sight.trouble),
        **_roles(form, sight, values),
    }


def _troubles(form: Form, trouble: Trouble | None) -> dict[Any, Any]:
    """The trouble beside its choice, nothing beside the others."""
    where = trouble.where if trouble and trouble.where in form.troubles else "source"
    return {place: views.trouble_html(trouble if name == where else None) for name, place in form.troubles.items()}


def _opened(form: Form, trouble: Trouble | None) -> dict[Any, Any]:
    """The drawer that the trouble stands in is opened; none is closed, because somebody may be in it."""
    return {drawer: gr.update(open=True) for drawer, names in form.drawers if trouble and trouble.where in names}


def _roles(form: Form, sight: Sight, values: dict[str, Any]) -> dict[Any, Any]:
    """The drop-downs filled with the columns there are, and those that this shape of rows has."""
    if not sight.columns and not (sight.trouble and sight.stage):  # they have not been read: the columns are as before
        return {}
    updates: dict[Any, Any] = {}
    for role, dropdown in form.roles.items():
        proposed = sight.roles.get(role) or (sight.roles.get("conversations") if role == "messages" else None)
        by_itself = say.PROPOSED.format(column=proposed) if proposed else say.NOT_USED
        chosen = values[f"role.{role}"] or ""
        updates[dropdown] = gr.update(choices=[(by_itself, ""), *((c, c) for c in sight.columns)], value=chosen)
    turns = "messages" in sight.roles or "conversations" in sight.roles or values["role.messages"]
    main = TEXT if values["learn"] == "text" else ("messages",) if turns else MAIN[:2]
    told = sight.trouble.where if sight.trouble else ""
    return updates | {place: gr.update(visible=role in (*main, told)) for role, place in form.places.items()}
