"""An adapter as a zip: PEFT's two files, where it comes from, and a model card. No pickle, no path of this machine.
(A bottleneck adapter has the same files, and `import_adapter` reads it; PEFT does not know it.)

The same run gives the same bytes: entries are sorted, stored uncompressed, and dated 1980.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from tunelab.errors import UserError
from tunelab.export.card import model_card, peft_steps
from tunelab.export.targets import Exported, new_file
from tunelab.run.public import provenance, without_folders
from tunelab.run.run import Run
from tunelab.techniques import FullFineTuning
from tunelab.techniques.base import CONFIG_FILE, PROVENANCE_FILE, WEIGHTS_FILE, PeftTechnique, adapter_file

DATE = (1980, 1, 1, 0, 0, 0)  # the first a zip can hold


def export_adapter(run: Run, path: str | Path) -> Exported:
    """The zip at `path` with the run's adapter; unzipped, `peft.PeftModel.from_pretrained` loads it, where PEFT has
    the technique.

    Raises:
        UserError: the run has no adapter, or `path` is taken.
    """
    run.check_whole()
    run.check_result()
    if isinstance(run.config.technique, FullFineTuning):
        raise UserError(
            f"Run {run.id} has no adapter: full fine-tuning makes a whole model. Export that with --to merged or gguf."
        )
    target = Path(path).expanduser()
    notes = _notes(run)
    with new_file(target, ".zip") as temporary:
        _write(temporary, _files(run, notes))
    return Exported(target, notes)


def _notes(run: Run) -> tuple[str, ...]:
    facts = provenance(run)
    template = "" if facts.get("plain_prompt") else ", and that model's chat template"
    notes = [f"Needs the base {facts['base_published_as']} beside it{template}."]
    if facts["base_note"]:
        notes.append(f"It was trained on the {facts['base_note']}, not on the published weights themselves.")
    return tuple(notes)


def _files(run: Run, notes: tuple[str, ...]) -> dict[str, bytes]:
    folder = run.adapter_path
    facts = without_folders(provenance(run))
    config = without_folders(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))
    library = "peft" if isinstance(run.config.technique, PeftTechnique) else None
    return {
        "README.md": model_card(run, peft_steps(run), notes[:1], library).encode(),
        CONFIG_FILE: json.dumps(config, indent=1, sort_keys=True).encode(),
        WEIGHTS_FILE: adapter_file(folder).read_bytes(),
        PROVENANCE_FILE: json.dumps(facts, indent=1).encode(),
    }


def _write(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, DATE)
            entry.create_system = 3  # Unix, wherever it is written
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name])
