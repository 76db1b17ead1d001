"""How the libraries underneath shall behave: what has to be said before torch is imported."""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_LOADING = threading.Lock()
_BUILDING = threading.RLock()


def prepare() -> None:
    """Set what OpenMP and oneDNN read when they start, and keep the libraries' own chatter off the terminal.

    - GNU OpenMP's threads spin for about a million cycles while they wait. As soon as anything else runs on the
      machine, two spinning threads keep each other from the cores, and a training step takes twenty times as long.
    - oneDNN, and PyTorch's layer above it, each keep the code generated for 1,024 shapes of product. Batches have many
      lengths, so that would grow by 10 MB a step; a few hundred are as fast.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")
    os.environ.setdefault("LRU_CACHE_CAPACITY", "128")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.")
    # in a notebook tqdm asks for widgets to draw its bars with; ours are off
    warnings.filterwarnings("ignore", message="IProgress not found")
    # bitsandbytes asks for the package `kernels`, which would run code from the Hub
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import_from_several_threads("transformers")


def load() -> None:
    """Import what models are loaded, trained and asked with, unless that was done already.

    These imports make half a million objects that stay to the end of the process. To look through them for garbage
    takes a seventh of the time to start, and a third of a second in each `gc.collect()`: it is not done meanwhile, and
    later collections leave them out.

    Threads of a program whose first import of torch could be the one of another thread as well call this first: modules
    that import each other can fail when two threads begin at two of them.
    """
    with _LOADING:
        _load()


def _load() -> None:
    if "peft" in sys.modules:
        return
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        import peft  # noqa: F401  # and with it torch, transformers and bitsandbytes
    finally:
        if collecting:
            gc.enable()
    gc.freeze()


@contextmanager
def building() -> Iterator[None]:
    """Inside, no other thread is inside: who builds a model or an adapter is.

    While transformers builds a model, it changes the whole process: the default dtype, `PreTrainedModel.tie_weights`
    and `torch.linspace`. Then it puts back what it found. Of two threads that build at the same time, the second finds
    what the first has changed, and puts that back: every model after that is built in the wrong dtype, with a head that
    is not tied. Whoever makes tensors outside says their dtype for the same reason.
    """
    with _BUILDING:
        yield


def import_from_several_threads(name: str) -> None:
    """Let threads import a package at the same time that puts another module in its own place, as transformers does.

    Who imports it while another thread does waits for that one, and Python gives it the module that was replaced
    meanwhile: it is empty, and `from transformers import AutoModel` fails. Here the old one asks the new one.
    """
    if name not in sys.modules and not any(isinstance(one, _Replaced) and one.name == name for one in sys.meta_path):
        sys.meta_path.insert(0, _Replaced(name))


class _Replaced(MetaPathFinder):
    """Finds the package `name` where it is, and changes how it is executed."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == self.name else None
        loader: Any = spec and spec.loader
        if loader is None:
            return None
        execute = loader.exec_module

        def execute_and_ask(module: Any) -> None:
            execute(module)
            if (new := sys.modules[name]) is not module:
                module.__getattr__ = lambda attribute: getattr(new, attribute)

        loader.exec_module = execute_and_ask
        return spec
