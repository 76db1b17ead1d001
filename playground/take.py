"""The routes by which a browser takes along what a run gave: files, made while one waits or made before (`exports`).

GET /take/RUN/adapter     a zip that PEFT loads
GET /take/RUN/notebook    cells that train exactly this run again
GET /take/RUN/KIND        what `exports` has made; a folder as a zip
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from starlette.background import BackgroundTask

from playground.errors import words_for
from playground.exports import KINDS
from tunelab import Run, UserError, as_notebook, export_adapter

if TYPE_CHECKING:
    from playground.jobs import Jobs

NOTEBOOK = "application/x-ipynb+json"
CHUNK = 1 << 20


def router(jobs: Jobs) -> APIRouter:
    """The routes of one runs root."""
    routes = APIRouter()

    @routes.get("/take/{run_id}/{what}")
    def take(run_id: str, what: str) -> Response:
        try:
            run = jobs.find(run_id)
            if run is None:
                raise UserError("This run is not there any more. Choose one in Runs.")
            return _taken(jobs, run, what)
        except Exception as error:
            return PlainTextResponse(words_for(error), 409)

    return routes


def _taken(jobs: Jobs, run: Run, what: str) -> Response:
    if what == "notebook":
        return Response(as_notebook(run), media_type=NOTEBOOK, headers=_named(f"{run.id}.ipynb"))
    if what == "adapter":
        folder = Path(tempfile.mkdtemp(prefix="playground-take-"))
        remove = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
        try:
            made = export_adapter(run, folder / "adapter.zip").path
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return FileResponse(made, headers=_named(f"{run.id}-adapter.zip"), background=remove)
    path = jobs.exports.one(run, what).path if what in KINDS else None
    if path is None:
        raise UserError("It is not made yet. Press its button in Runs, and wait until it is done.")
    if path.is_dir():
        return StreamingResponse(zipped(path), media_type="application/zip", headers=_named(f"{run.id}-{what}.zip"))
    return FileResponse(path, headers=_named(f"{run.id}-{what}{path.suffix}"))


def zipped(folder: Path) -> Iterator[bytes]:
    """The bytes of a zip with the files of a folder, as they are written: nothing is kept in memory or on the disk."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            with open(path, "rb") as file, archive.open(str(path.relative_to(folder)), "w", force_zip64=True) as entry:
                while chunk := file.read(CHUNK):
                    entry.write(chunk)
                    yield sink.drained()
    yield sink.drained()


class _Sink(RawIOBase):
    """A file that is written from its beginning to its end and gives away what it has got."""

    def __init__(self) -> None:
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, content: object) -> int:
        held = bytes(content)  # type: ignore[call-overload]
        self._held += held
        return len(held)

    def drained(self) -> bytes:
        held = bytes(self._held)
        self._held.clear()
        return held


def _named(name: str) -> dict[str, str]:
    return {"content-disposition": f"attachment; filename*=UTF-8''{quote(name)}"}
