"""What the terminal says of failures: all of them, but not of pages that are gone."""

from __future__ import annotations

import logging
import sys

import pytest
from fastapi import HTTPException

from playground.errors import LeftPages


def sse_stream(status):
    raise HTTPException(status)


def record_of(call, *values):
    try:
        try:
            call(*values)
        except HTTPException as error:
            raise RuntimeError("Caught handled exception, but response already started.") from error
    except (RuntimeError, ZeroDivisionError):
        return logging.LogRecord("uvicorn.error", logging.ERROR, __file__, 1, "in ASGI", (), sys.exc_info())


def another_route(status):
    raise HTTPException(status)


@pytest.mark.parametrize(
    ("call", "value", "told"),
    [(sse_stream, 404, False), (sse_stream, 500, True), (another_route, 404, True), (lambda _n: 1 / 0, 0, True)],
)
def test_only_the_stream_of_a_page_that_was_left_is_no_failure(call, value, told):
    assert LeftPages().filter(record_of(call, value)) is told


def test_what_is_no_error_is_told():
    assert LeftPages().filter(logging.LogRecord("uvicorn.error", logging.INFO, __file__, 1, "started", (), None))
