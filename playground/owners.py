"""Whose a run is: who started it from the page may change it, and so may whoever shows the server's key.

    RUN_DIR/owner            hashes of the session and the token that started it, made with the server's key
    RUNS_ROOT/.server-key    random, made once: restarts change nothing

Both can be read by the server's account alone. A run without an owner belongs to who started the ladder or the sweep
that made it; one that none made, from the command line or from before, to whoever runs the server. Knows nothing of the
page.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from tunelab import Ladder, Sweep, UserError
from tunelab.measure.series import Series
from tunelab.run.run import runs_root

OWNER_FILE, KEY_FILE = "owner", ".server-key"
SHORTEST_KEY = 32  # characters
LARGEST_FILE = 10_000  # bytes
Whose = Literal["yours", "server", "another"]


class Owned(Protocol):
    """A run, or a ladder: a directory."""

    @property
    def path(self) -> Path: ...

    @property
    def id(self) -> str: ...


@dataclass(frozen=True)
class Caller:
    """Who asks for something: a browser's session, a token that was shown, or the server's own code."""

    session: str | None = None
    token: str | None = None
    is_server: bool = False  # nothing that comes from outside may set this

    @classmethod
    def server(cls) -> Caller:
        """Whoever runs the server."""
        return cls(is_server=True)


class Owners:
    """Who may change the runs of one root."""

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = runs_root(root)

    @cached_property
    def key(self) -> str:
        """The server's key, made when it is first needed.

        Raises:
            UserError: the file holds none.
        """
        path = self.root / KEY_FILE
        self.root.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _write_privately(path, secrets.token_urlsafe(SHORTEST_KEY), replace=False)
        if os.name != "nt" and path.stat().st_mode & 0o077:
            path.chmod(0o600)
        key = _text(path).strip()
        if len(key) < SHORTEST_KEY:
            raise UserError(
                f"{path} holds no key: it has {len(key)} characters of at least {SHORTEST_KEY}. Put the old file back, "
                "or remove it: a new key is made then, and runs started before belong to whoever runs the server."
            )
        return key

    def remember(self, owned: Owned, caller: Caller) -> None:
        """Note who started it. What the server starts needs no note."""
        hashes = {kind: self._hash(kind, value) for kind, value in _shown_by(caller) if value}
        if hashes and not caller.is_server:
            _write_privately(owned.path / OWNER_FILE, json.dumps(hashes), replace=True)

    def may_change(self, owned: Owned, session: str | None, token: str | None) -> bool:
        """Whether who shows this session or token may change it."""
        known = self._known(owned)
        allowed = bool(token) and _same(str(token), self.key)
        for kind, value in (("session", session), ("token", token)):
            allowed |= bool(value) and _same(self._hash(kind, str(value)), known.get(kind, ""))
        return allowed

    def check(self, owned: Owned, caller: Caller) -> None:
        """Refuse who may not change it.

        Raises:
            UserError: with whose it is.
        """
        if not caller.is_server and not self.may_change(owned, caller.session, caller.token):
            raise UserError(self.refusal(owned))

    def runs_server(self, caller: Caller) -> bool:
        """Whether the caller is who runs the server."""
        return caller.is_server or bool(caller.token and _same(caller.token, self.key))

    def check_server(self, caller: Caller) -> None:
        """Refuse whoever does not run the server.

        Raises:
            UserError: what is asked concerns the runs of all.
        """
        if not self.runs_server(caller):
            raise UserError("This concerns everybody's runs: only whoever shows the server's key can do it.")

    def whose(self, owned: Owned, caller: Caller) -> Whose:
        """Whose it is, as the caller sees it: to show, not to decide by."""
        if not self._known(owned):
            return "server"
        return "yours" if caller.is_server or self.may_change(owned, caller.session, None) else "another"

    def refusal(self, owned: Owned) -> str:
        """What to tell who may not change it."""
        if not self._known(owned):
            return (
                f"{owned.id} was started on the command line, or by an earlier version: only whoever shows the "
                "server's key can change it. You can look at it, compare it, and start one like it."
            )
        return (
            f"{owned.id} was started in another session: only who started it, or whoever shows the server's key, can "
            "change it. You can look at it, compare it, and start one like it."
        )

    def _known(self, owned: Owned) -> dict[str, str]:
        """The hashes kept beside it, by kind, or beside the series that made it; a broken file is none."""
        if (owned.path / OWNER_FILE).exists() or isinstance(owned, Series):
            return _hashes(owned)
        kinds: tuple[type[Series[Any]], ...] = (Ladder, Sweep)
        files = ((kind, file) for kind in kinds for file in kind.folder(self.root).glob(f"*/{kind.FILE}"))
        every = (kind(file.parent, self.root) for kind, file in files)
        return next((_hashes(one) for one in every if owned.id in one.run_ids), {})

    def _hash(self, kind: str, value: str) -> str:
        return hmac.new(
            self.key.encode(), f"{kind}\0{value}".encode(errors="surrogatepass"), hashlib.sha256
        ).hexdigest()


def _hashes(owned: Owned) -> dict[str, str]:
    with suppress(ValueError, RecursionError):
        known = json.loads(_text(owned.path / OWNER_FILE))
        if isinstance(known, dict):
            return {kind: known[kind] for kind in ("session", "token") if isinstance(known.get(kind), str)}
    return {}


def _shown_by(caller: Caller) -> tuple[tuple[str, str | None], ...]:
    return ("session", caller.session), ("token", caller.token)


def _same(one: str, other: str) -> bool:
    """Whether two texts are equal, in a time that does not say where they differ."""
    return hmac.compare_digest(one.encode(errors="surrogatepass"), other.encode(errors="surrogatepass"))


def _text(path: Path) -> str:
    """What a small file holds; nothing where it is none."""
    with suppress(OSError, UnicodeDecodeError):
        if path.is_file() and path.stat().st_size <= LARGEST_FILE:
            return path.read_text(encoding="utf-8")
    return ""


def _write_privately(path: Path, text: str, *, replace: bool) -> None:
    """Write a file that only this account can read, whole or not at all; without `replace` the first one stays."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(temporary, path)
        else:
            try:
                os.link(temporary, path)
            except FileExistsError:
                pass
            except OSError:  # no links on this disk
                os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
