"""How events are wired."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

# for every event: it belongs to the page; what others may call stands in `api`
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
# for events that nobody asked for
QUIET: dict[str, Any] = {**PRIVATE, "show_progress": "hidden"}


def shown_if(condition: object) -> bool | Literal["hidden"]:
    """`visible` of a component that is shown at times. Never False: Gradio takes it out of the page then, and what it
    held in the browser is lost."""
    return True if condition else "hidden"


def changed(value: object, shown: object) -> dict[str, Any]:
    """What of an update sets the value of a component that shows another one; nothing where it shows it already, for
    somebody may be choosing there."""
    return {} if value == shown else {"value": value}


def by_name(widgets: dict[str, Any], values: Iterable[Any]) -> dict[str, Any]:
    """The values of widgets, as a handler gets them, by the widgets' names."""
    return dict(zip(widgets, values, strict=True))
