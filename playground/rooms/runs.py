"""The Runs room: everything that was trained."""

from __future__ import annotations

from playground.parts.live import live_html
from playground.parts.shared import Shared


def build(shared: Shared) -> None:
    live_html("runs", elem_id="runs")
