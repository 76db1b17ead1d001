"""Which rows the values of the Data room's form describe: where they come from, and how they are read and divided."""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder

from playground.english import data as say
from playground.jobs import Jobs
from playground.troubles import WrongChoice
from tunelab import Stage, UserError, list_handed
from tunelab.data.builtin import BUILTIN
from tunelab.data.reading import pasted_suffix
from tunelab.data.split import file_of


def stage_of(values: dict[str, Any], fixes: tuple[str, ...], jobs: Jobs) -> Stage | None:
    """What the widgets' values describe; nothing where no rows are chosen yet. Uploads are kept beside the runs.

    Raises:
        UserError: a value is not one that can be read.
        pydantic.ValidationError: as above.
    """
    source = _source_of(values, jobs)
    if source is None:
        return None
    columns = {name.partition(".")[2]: value for name, value in values.items() if name.startswith("role.") and value}
    data = {
        **source,
        "columns": columns or None,
        "template": values["template"] or None,
        "system": values["system"] or None,
        "labels": _labels(values["labels"] or ""),
        "header": values["header"] or "auto",
        "limit": values["limit"],
        "seed": values["seed"] or 0,
        "heldout": _heldout_of(values, jobs),
        "fixes": fixes,
    }
    return Stage.model_validate({"data": data, "learn": values["learn"]})


def _source_of(values: dict[str, Any], jobs: Jobs) -> dict[str, Any] | None:
    """The fields of a `DataSpec` that say where rows come from."""
    match values["kind"]:
        case "builtin":
            return {"source": name} if (name := builtin_of(values)) in BUILTIN else None
        case "file":
            return {"source": jobs.keep_upload(values["file"])} if values["file"] else None
        case "paste":
            return {"source": str(pasted_file(values["pasted"]))} if (values["pasted"] or "").strip() else None
        case "hub":
            return _on_hub(values) if (values["hub"] or "").strip() else None
    if not values["handed"]:
        return None
    if values["handed"] not in {str(one.path) for one in list_handed(jobs.root)}:
        raise UserError(say.HANDED_GONE)
    return {"source": values["handed"]}


def builtin_of(values: dict[str, Any]) -> str:
    """The built-in set whose card was pressed; behind its name stands when."""
    return str(values["builtin"]).partition(" ")[0]


def _on_hub(values: dict[str, Any]) -> dict[str, Any]:
    """A Hub id; never a file of the machine the app runs on, which another person's browser must not read."""
    name = values["hub"].strip()
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) or file_of(name) is not None:
        raise UserError(say.HUB_WRONG.format(value=name[:80]))
    return {"source": name, "subset": values["subset"] or None, "split": values["split"] or None}


def _heldout_of(values: dict[str, Any], jobs: Jobs) -> float | str:
    """
    Raises:
        WrongChoice: there is no file yet, or no amount.
    """
    match values["heldout"]:
        case "file":
            if not values["heldout_file"]:
                raise WrongChoice("heldout", say.NO_HELDOUT_FILE)
            return jobs.keep_upload(values["heldout_file"])
        case "amount":
            if values["amount"] is None:
                raise WrongChoice("heldout", say.NO_AMOUNT)
            return float(values["amount"])
    return "auto"


def _labels(written: str) -> dict[str, str] | None:
    """
    Raises:
        WrongChoice: a line is not 'label = word'.
    """
    labels = {}
    for place, line in enumerate(written.splitlines(), 1):
        label, sign, word = (part.strip() for part in line.partition("="))
        if not line.strip():
            continue
        if not (label and sign and word):
            raise WrongChoice("labels", say.LABELS_WRONG.format(line=place, text=line.strip()[:40]))
        labels[label] = word
    return labels or None


def pasted_file(text: str) -> Path:
    """A file with the text, named by its content, in the folder of uploads: it goes when the app ends, unless rows of
    it are trained on, which keeps a copy beside the runs.

    Raises:
        UserError: the text is empty.
    """
    content = text.encode("utf-8", "surrogatepass")
    folder = Path(get_upload_folder()) / f"pasted-{hashlib.sha256(content).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"pasted{pasted_suffix(text)}"
    if not path.exists():
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(content)
        Path(file.name).replace(path)
    return path


def kept(stage: Stage, jobs: Jobs) -> Stage:
    """The stage with a file that was pasted kept beside the runs."""
    source = stage.data.source
    if source is None or Path(get_upload_folder()) not in Path(source).parents:
        return stage
    return stage.model_copy(update={"data": stage.data.model_copy(update={"source": jobs.keep_upload(source)})})
