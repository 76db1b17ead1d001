"""Files that a page makes for its reader to take along."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def new_folder() -> Path:
    """An empty folder that goes when the app ends; nobody else knows its name."""
    return Path(tempfile.mkdtemp(prefix="export-", dir=os.environ.get("GRADIO_TEMP_DIR")))
