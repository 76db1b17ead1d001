"""The form of the data: where rows come from, which column plays which role, what is held out; and the stage that the
widgets' values describe.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from playground import views
from playground.english import data as say
from playground.jobs import Jobs
from playground.parts.choices import rows_file
from tunelab import DataSpec, Stage, UserError, list_handed
from tunelab.data.builtin import BUILTIN
from tunelab.data.reading import pasted_suffix
from tunelab.data.split import file_of

MAIN, TEXT = ("prompt", "completion", "messages"), ("text",)
OTHERS = ("input", "context", "system", "history", "choices", "label", "group")
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
    with gr.Accordion(say.MORE_COLUMNS, open=False, elem_id="data-more"):
        _more_columns(widgets, troubles)
    amount, heldout_file = _heldout(widgets, troubles)
    return Form(widgets, troubles, panels, cards, fetch, reload, mapping, places, amount, heldout_file)


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
        widgets["builtin"] = gr.Textbox("python-docs", visible="hidden", elem_id="data-builtin", label="set")
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
        widgets["handed"] = gr.Radio([], label=say.HANDED, info=say.HANDED_HELP, visible=False, elem_id="data-handed")
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


def _more_columns(widgets: dict[str, Any], troubles: dict[str, Any]) -> None:
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
        widgets["limit"] = gr.Number(
            None, label=say.LIMIT, info=say.LIMIT_HELP, precision=0, minimum=1, elem_id="data-limit", min_width=140
        )
    troubles["header"] = _trouble("header")


def _heldout(widgets: dict[str, Any], troubles: dict[str, Any]) -> tuple[gr.Row, gr.Column]:
    with gr.Accordion(say.HELDOUT_PART, open=False, elem_id="data-heldout-part"):
        widgets["heldout"] = gr.Radio(
            [(title, name) for name, title in say.HELDOUTS.items()],
            value="auto",
            label=say.HELDOUT,
            info=say.HELDOUT_HELP,
            elem_id="data-heldout",
        )
        with gr.Row(visible=False, elem_classes="settings") as amount:
            widgets["amount"] = gr.Number(
                0.1, label=say.AMOUNT, info=say.AMOUNT_HELP, minimum=0, elem_id="data-amount", min_width=140
            )
            widgets["seed"] = gr.Number(
                0, label=say.SEED, info=say.SEED_HELP, precision=0, minimum=0, elem_id="data-seed", min_width=140
            )
        with gr.Column(visible=False) as heldout_file:
            widgets["heldout_file"] = rows_file(say.HELDOUT_FILE, elem_id="data-heldout-file")
        troubles["heldout"] = _trouble("heldout")
    troubles["fixes"] = _trouble("fixes")
    return amount, heldout_file


def stage_of(values: dict[str, Any], fixes: tuple[str, ...], jobs: Jobs) -> Stage | None:
    """What the widgets' values describe; nothing where no rows are chosen yet. Uploads are kept beside the runs.

    Raises:
        UserError: a value is not one that can be read.
        pydantic.ValidationError: as above.
    """
    source = _source_of(values, jobs)
    if source is None:
        return None
    columns = {name.partition(".")[2]: value for name, value in values.items() if name.startswith("role.") and value}
    data = {
        **source,
        "columns": columns or None,
        "template": values["template"] or None,
        "system": values["system"] or None,
        "labels": _labels(values["labels"] or ""),
        "header": values["header"] or "auto",
        "limit": values["limit"] or None,
        "seed": int(values["seed"] or 0),
        "heldout": _heldout_of(values, jobs),
        "fixes": fixes,
    }
    return Stage.model_validate({"data": data, "learn": values["learn"]})


def _source_of(values: dict[str, Any], jobs: Jobs) -> dict[str, Any] | None:
    """The fields of a `DataSpec` that say where rows come from."""
    match values["kind"]:
        case "builtin":
            return {"source": name} if (name := builtin_of(values)) in BUILTIN else None
        case "file":
            return {"source": jobs.keep_upload(values["file"])} if values["file"] else None
        case "paste":
            return {"source": str(pasted_file(values["pasted"]))} if (values["pasted"] or "").strip() else None
        case "hub":
            return _on_hub(values) if (values["hub"] or "").strip() else None
    if not values["handed"]:
        return None
    if values["handed"] not in {str(one.path) for one in list_handed(jobs.root)}:
        raise UserError(say.HANDED_GONE)
    return {"source": values["handed"]}


def builtin_of(values: dict[str, Any]) -> str:
    """The built-in set whose card was pressed; behind its name stands when."""
    return str(values["builtin"]).partition(" ")[0]


def _on_hub(values: dict[str, Any]) -> dict[str, Any]:
    """A Hub id; never a file of the machine the app runs on, which another person's browser must not read."""
    name = values["hub"].strip()
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) or file_of(name) is not None:
        raise UserError(say.HUB_WRONG.format(value=name[:80]))
    return {"source": name, "subset": values["subset"] or None, "split": values["split"] or None}


def _heldout_of(values: dict[str, Any], jobs: Jobs) -> float | str:
    if values["heldout"] == "file" and values["heldout_file"]:
        return jobs.keep_upload(values["heldout_file"])
    if values["heldout"] == "amount":
        return float(values["amount"] or 0)
    return "auto"


def _labels(written: str) -> dict[str, str] | None:
    """
    Raises:
        UserError: a line is not 'label = word'.
    """
    labels = {}
    for number, line in enumerate(written.splitlines(), 1):
        label, sign, word = (part.strip() for part in line.partition("="))
        if not line.strip():
            continue
        if not (label and sign and word):
            raise UserError(say.LABELS_WRONG.format(line=number, text=line.strip()[:40]))
        labels[label] = word
    return labels or None


def pasted_file(text: str) -> Path:
    """A file with the text, named by its content, in the folder of uploads: it goes when the app ends, unless rows of
    it are trained on, which keeps a copy beside the runs.

    Raises:
        UserError: the text is empty.
    """
    content = text.encode("utf-8", "surrogatepass")
    folder = Path(gr.utils.get_upload_folder()) / f"pasted-{hashlib.sha256(content).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"pasted{pasted_suffix(text)}"
    if not path.exists():
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(content)
        Path(file.name).replace(path)
    return path


def kept(stage: Stage, jobs: Jobs) -> Stage:
    """The stage with a file that was pasted kept beside the runs."""
    source = stage.data.source
    if source is None or Path(gr.utils.get_upload_folder()) not in Path(source).parents:
        return stage
    return stage.model_copy(update={"data": stage.data.model_copy(update={"source": jobs.keep_upload(source)})})
