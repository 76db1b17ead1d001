"""The models that lie on this machine, whole: the starter, those in the Hub's cache, GGUF files that were read, and
folders that are named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunelab.choice.published import Published, published_as
from tunelab.errors import UserError
from tunelab.machine.files import cache_root
from tunelab.model import folder as folders
from tunelab.model import from_gguf, hub, starter
from tunelab.model.load import find
from tunelab.spec import STARTER, ModelSpec

Say = Callable[[str], None]


@dataclass(frozen=True)
class AtHand:
    """A model that can be loaded without a network."""

    repo_id: str
    origin: str  # where it lies, in a word or two
    folder: Path
    published: Published | None

    @property
    def name(self) -> str:
        """What to call it in a table: of a path the last part."""
        return self.repo_id if self.origin in ("built in", "Hub cache") else Path(self.repo_id).name


def at_hand(also: Sequence[str] = (), say: Say | None = None) -> tuple[list[AtHand], list[str]]:
    """The models on this machine, and a sentence for each thing that looks like one and can't be used. `also`: folders,
    GGUF files or ids, each of which has to be usable, and is fetched if need be.

    Raises:
        UserError: one of `also` is not on this machine, or no model.
    """
    found: dict[str, AtHand] = {}
    notes: list[str] = []
    if folder := starter.cached_path():
        found[STARTER] = AtHand(STARTER, "built in", folder, published_as(starter.PUBLISHED_AS))
    for one in (*_in_hub_cache(), *_read_from_gguf()):
        if reason := _refusal(one):
            notes.append(reason)
        else:
            found.setdefault(one.repo_id, one)
    for repo_id in also:
        one = _named(repo_id, say)
        found[one.repo_id] = one
    return list(found.values()), notes


def _named(repo_id: str, say: Say | None) -> AtHand:
    spec = ModelSpec(repo_id=repo_id)
    folder = find(spec, say)
    if repo_id == STARTER:
        return AtHand(STARTER, "built in", folder, published_as(starter.PUBLISHED_AS))
    folders.check_config(folders.read_config(folder), _as_stored(repo_id, folder))
    local = spec.local_path
    if local is None:
        return AtHand(repo_id, "Hub cache", folder, published_as(repo_id))
    return AtHand(local, "GGUF" if Path(local).is_file() else "folder", folder, None)


def _in_hub_cache() -> Iterator[AtHand]:
    """Whole models of the Hub's cache, as their default branch was fetched last."""
    for repo_id in hub.cached_models():
        folder = hub.cached_folder(repo_id)
        if folder is not None:
            yield AtHand(repo_id, "Hub cache", folder, published_as(repo_id))


def _read_from_gguf() -> Iterator[AtHand]:
    """GGUF files that were read before, are still there, and have not changed."""
    for facts in sorted((cache_root() / "gguf").glob(f"*/{from_gguf.FACTS_FILE}")):
        source = Path(str(folders.json_of(facts).get("source", "")))
        if source.is_file() and from_gguf.cached_folder(source) == facts.parent:
            yield AtHand(str(source), "GGUF", facts.parent, None)


def _refusal(one: AtHand) -> str:
    """Why a model that lies here can't be used; '' where it can."""
    try:
        folders.check_config(folders.read_config(one.folder), _as_stored(one.repo_id, one.folder))
    except UserError as error:
        return str(error)
    return ""


def _as_stored(repo_id: str, folder: Path) -> ModelSpec:
    """The spec that asks for a model as its weights are stored."""
    stored = folders.stored_quantization(folders.read_config(folder))
    return ModelSpec(repo_id=repo_id, quantization=stored if stored in ("nf4", "int8") else "none")
