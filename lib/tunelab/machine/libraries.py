"""How the libraries underneath shall behave: what has to be said before torch is imported."""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings


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


def load() -> None:
    """Import what models are loaded, trained and asked with, unless that was done already.

    These imports make half a million objects that stay to the end of the process. To look through them for garbage
    takes a seventh of the time to start, and a third of a second in each `gc.collect()`: it is not done meanwhile, and
    later collections leave them out.
    """
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
