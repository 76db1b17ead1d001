"""Text boxes that nobody sees. The page's script reads them, or writes into them what was pressed inside a part that
Gradio does not know, with a number behind it: the same text twice would be no change."""

from __future__ import annotations

import gradio as gr


def hidden(elem_id: str, value: str = "") -> gr.Textbox:
    """A place for what was pressed."""
    return gr.Textbox(value, visible="hidden", elem_id=elem_id, label=elem_id)
