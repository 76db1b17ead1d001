"""Bytes and seconds for people."""

from __future__ import annotations


def size(count: int) -> str:
    """Bytes in the unit that fits: '1.25 GB', '9.8 MB', '4.0 kB'."""
    if count >= 1e9:
        return f"{count / 1e9:,.2f} GB"
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


def duration(seconds: float) -> str:
    """Seconds in the unit that fits: '7.6 s', '41 s', '12.5 min', '3.0 h'."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:,.1f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"
