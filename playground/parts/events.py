"""How events are wired."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# for every event: it belongs to the page; what others may call stands in `api`
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
# for events that nobody asked for
QUIET: dict[str, Any] = {**PRIVATE, "show_progress": "hidden"}


def by_name(widgets: dict[str, Any], values: Iterable[Any]) -> dict[str, Any]:
    """The values of widgets, as a handler gets them, by the widgets' names."""
    return dict(zip(widgets, values, strict=True))
