"""Whose runs are whose."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Caller:
    session: str | None = None
    token: str | None = None
