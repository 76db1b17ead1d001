"""The Learn room: the tutorials, read beside the app and run in JupyterLab, and the glossary of all words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from playground.english import learn as say
from playground.errors import shown
from playground.parts.events import PRIVATE, QUIET, shown_if
from playground.views import glossary as words
from playground.views import notebooks
from playground.views.notebooks import Notebook

# KaTeX comes with the page; nothing is fetched
FORMULAS: list[dict[str, str | bool]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "$", "right": "$", "display": False},
]
# on a phone the list stands above the notebook: what was opened is brought into view
BRING_INTO_VIEW = """() => {
    const block = window.innerWidth > 700 ? 'nearest' : 'start';
    document.getElementById('notebook-head')?.scrollIntoView({block, behavior: 'smooth'});
}"""


@dataclass(frozen=True)
class _Reader:
    """What shows the notebook that is open."""

    head: gr.Markdown
    command: gr.Textbox
    solutions: gr.Button
    opened: gr.State  # its file's name, or 'solutions/' and the name
    page: gr.Markdown


def build(folder: Path = notebooks.FOLDER) -> None:
    """The room's components and what they do; its notebooks are those of the folder."""
    every = notebooks.every_notebook(folder)
    with gr.Tabs():
        with gr.Tab(say.NOTEBOOKS, id="notebooks"), gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=300, elem_id="notebook-list"):
                choices = _lay_out_choices(every)
            with gr.Column(scale=8, min_width=320):
                reader = _lay_out_reader()
        with gr.Tab(say.GLOSSARY, id="glossary"):
            _glossary()
    _open_on_click(every, choices, reader)


def _lay_out_choices(every: list[Notebook]) -> list[gr.Button]:
    if not every:
        gr.Markdown(say.NO_NOTEBOOKS, elem_classes="muted")
    seen: set[str] = set()
    buttons = []
    for notebook in every:
        with gr.Column(elem_classes="notebook-choice", min_width=0):
            buttons.append(gr.Button(notebook.title, size="sm", elem_id=f"open-{notebook.name}"))
            gr.HTML(words.about_html(notebook, seen))
    return buttons


def _lay_out_reader() -> _Reader:
    head = gr.Markdown(say.NOTHING_OPEN, elem_id="notebook-head", elem_classes="message")
    with gr.Row(equal_height=False):
        command = gr.Textbox(
            label=say.COMMAND,
            info=say.COMMAND_HELP,
            interactive=False,
            buttons=["copy"],
            visible="hidden",
            elem_id="notebook-command",
            scale=4,
            min_width=300,
        )
        solutions = gr.Button(
            say.SOLUTIONS, visible="hidden", elem_id="notebook-solutions", size="sm", scale=1, min_width=150
        )
    page = gr.Markdown(
        "",
        latex_delimiters=FORMULAS,
        # `notebooks.page` is markup that has been made safe, with drawings in it, which Gradio's own filter drops
        sanitize_html=False,
        elem_id="notebook-page",
    )
    return _Reader(head, command, solutions, gr.State(None), page)


def _open_on_click(every: list[Notebook], choices: list[gr.Button], reader: _Reader) -> None:
    outputs = [reader.head, reader.command, reader.solutions, reader.opened, reader.page, *choices]

    def opening(notebook: Notebook) -> Any:
        @shown(reader.head)
        def show() -> dict[Any, Any]:
            chosen = {
                button: gr.update(elem_classes=["opened"] if one is notebook else [])
                for button, one in zip(choices, every, strict=True)
            }
            return {**_as_read(reader, notebook, notebook.path), **chosen}

        return show

    def other(opened: str) -> dict[Any, Any]:
        """The solutions of what is open, or from them back to the notebook."""
        notebook = next(one for one in every if one.path.name == Path(opened).name)
        path = notebook.path if opened.startswith("solutions/") else notebook.solutions
        return _as_read(reader, notebook, path or notebook.path)

    for notebook, button in zip(every, choices, strict=True):
        # several people may open one at a time: making its page the first time takes a second or two
        click = button.click(opening(notebook), None, outputs, concurrency_limit=4, **PRIVATE)
        click.then(None, None, None, js=BRING_INTO_VIEW)
    reader.solutions.click(shown(reader.head)(other), reader.opened, outputs, concurrency_limit=4, **PRIVATE)


def _as_read(reader: _Reader, notebook: Notebook, path: Path) -> dict[Any, Any]:
    """A notebook, or the one with its solutions, as the reader shows it."""
    solved = path == notebook.solutions
    return {
        reader.page: notebooks.page(path),
        reader.head: say.SHOWN_AS_RUN,
        reader.command: gr.update(value=notebooks.command(path), visible=True),
        reader.solutions: gr.update(
            value=say.EXERCISES if solved else say.SOLUTIONS, visible=shown_if(notebook.solutions)
        ),
        reader.opened: f"solutions/{path.name}" if solved else path.name,
    }


def _glossary() -> None:
    wanted = gr.Textbox(
        label=say.FIND,
        info=say.FIND_HELP,
        placeholder=say.FIND_EXAMPLE,
        max_lines=1,
        elem_id="glossary-search",
    )
    found = gr.HTML(words.glossary_html(), elem_id="glossary-words")
    wanted.change(words.glossary_html, wanted, found, queue=False, **QUIET)
