"""A place of the page that `web/live.js` keeps up to date with a part of `live.PARTS`."""

from __future__ import annotations

from html import escape

import gradio as gr


def live_html(part: str, *, elem_id: str, empty: str = "", elem_classes: str | None = None) -> gr.HTML:
    """The place of a part; `empty` stands there until the first look."""
    inside = f'<p class="muted">{escape(empty)}</p>' if empty else ""
    return gr.HTML(f'<div data-live="{part}">{inside}</div>', elem_id=elem_id, elem_classes=elem_classes)
