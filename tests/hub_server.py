"""A small server that answers as the Hugging Face Hub does, on this machine: repositories with commits, private and
gated ones, files by etag and by ranges, and a connection that breaks off."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOKEN = "hf_known"


@dataclass
class Repository:
    """What one repository holds, commit by commit."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def commit(self, folder: Path, ref: str = "main") -> str:
        """A new commit with the files of a folder; its name."""
        files = {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}
        name = hashlib.sha1(
            repr(sorted((n, hashlib.sha1(b).hexdigest()) for n, b in files.items())).encode()
        ).hexdigest()
        self.commits[name] = files
        self.refs[ref] = name
        return name

    def resolved(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    range: str | None
    sent: int = 0  # bytes of a file


class HubServer(ThreadingHTTPServer):
    """`cut` says after which share of a large file the connection breaks, and `cuts` how often; with `status` every
    request is answered by it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.asked: list[Asked] = []
        self.cut, self.cuts, self.status = 1.0, 0, 0
        self.ranges = True  # False: a range is not heard, as some caches do
        self.garbled = False  # other bytes than the sha256 says

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def gets(self, name: str) -> list[Asked]:
        """The times that a file was asked for."""
        return [
            one for one in self.asked if one.method == "GET" and "/resolve/" in one.path and one.path.endswith(name)
        ]


@contextmanager
def serving() -> Iterator[HubServer]:
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        asked = Asked(self.command, path, self.headers.get("Range"))
        self.server.asked.append(asked)
        if self.server.status:
            self._refuse(self.server.status, "")
            return
        parts = path.strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        owner, name, *rest = parts[2:] if api else parts
        repository = self.server.repositories.get(f"{owner}/{name}")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token != TOKEN:
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif repository is None or (repository.private and token != TOKEN):
            self._refuse(404 if token else 401, "RepoNotFound")
        elif api:
            self._of_api(repository, f"{owner}/{name}", rest)
        else:
            self._file(repository, rest, asked)

    def _of_api(self, repository: Repository, repo_id: str, rest: list[str]) -> None:
        commit = repository.resolved(rest[1] if len(rest) > 1 else "main")
        if commit is None:
            self._refuse(404, "RevisionNotFound")
            return
        files = repository.commits[commit]
        if rest[:1] == ["tree"]:
            self._json([_listed(name, content) for name, content in files.items()])
        else:
            names = [{"rfilename": name} for name in files]
            gated = "manual" if repository.gated else False
            self._json({"id": repo_id, "sha": commit, "gated": gated, "siblings": names, "tags": []})

    def _file(self, repository: Repository, rest: list[str], asked: Asked) -> None:
        commit = repository.resolved(rest[1])
        if repository.gated:
            self._refuse(401, "GatedRepo")
            return
        if commit is None:
            self._refuse(404, "RevisionNotFound")
            return
        content = repository.commits[commit].get("/".join(rest[2:]))
        if content is None:
            self._refuse(404, "EntryNotFound", commit=commit)
            return
        self._send(content, commit, asked)

    def _send(self, content: bytes, commit: str, asked: Asked) -> None:
        start, whole = 0, len(content)
        if asked.range and self.server.ranges:
            start = int(asked.range.removeprefix("bytes=").partition("-")[0])
        body = content[start:]
        if self.server.garbled:
            body = bytes(255 - byte for byte in body)
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{_etag(content)}"')
        self.send_header("X-Repo-Commit", commit)
        if _is_large(content):
            self.send_header("X-Linked-ETag", f'"{_etag(content)}"')
            self.send_header("X-Linked-Size", str(whole))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        breaks = _is_large(content) and self.server.cuts > 0
        sent = body[: max(0, int(whole * self.server.cut) - start)] if breaks else body
        self.wfile.write(sent)
        asked.sent = len(sent)
        if breaks:
            self.server.cuts -= 1
            self.close_connection = True

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str, message: str = "", commit: str = "") -> None:
        self.send_response(status)
        for name, value in (("X-Error-Code", code), ("X-Error-Message", message), ("X-Repo-Commit", commit)):
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()


LARGE = 100_000  # bytes from which on a file is kept as the Hub keeps large ones: by its sha256


def _is_large(content: bytes) -> bool:
    return len(content) >= LARGE


def _etag(content: bytes) -> str:
    if _is_large(content):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _listed(name: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": _etag(content)[:40]}
    if _is_large(content):
        entry["lfs"] = {"oid": _etag(content), "size": len(content), "pointerSize": 134}
    return entry
