"""Adapters made elsewhere with PEFT, as a run that can be compared, merged and exported like any other.

The files come from a stranger, so they are opened in this order, and the first thing that is wrong ends it:

    names in the zip or folder ──> adapter_config.json (allow-listed), header of the safetensors file: names, types and
    shapes as this base needs them ──> the weights

The run's adapter is then written anew: nothing of the stranger's files but its numbers is kept.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelab.config import RunConfig
from tunelab.errors import UserError
from tunelab.export.foreign_config import technique_of
from tunelab.export.foreign_files import Entry, Shapes, open_entries, read_header, read_json, sha256_of
from tunelab.machine.files import replacing
from tunelab.run.events import Finished, Started
from tunelab.run.run import Run
from tunelab.spec import DataSpec, ModelSpec, Stage
from tunelab.techniques import LoRA, places
from tunelab.techniques.base import (
    CONFIG_FILE,
    PROVENANCE_FILE,
    WEIGHTS_FILE,
    PeftTechnique,
    Technique,
    write_provenance,
)
from tunelab.techniques.virtual import VirtualTokens

if TYPE_CHECKING:
    from torch import Tensor

    from tunelab.model.load import Base

PEFT_PREFIX = "base_model.model."
UNKNOWN_DATA = "unknown (adapter imported)"


def import_adapter(path: str | Path, model: ModelSpec, root: str | Path | None = None, name: str | None = None) -> Run:
    """A finished run with the adapter of `path` (a folder or a zip), on the base `model`.

    Raises:
        UserError: the files are not safe or not an adapter, or it does not fit this base; the message says what.
    """
    from tunelab.model.load import skeleton

    source = Path(path).expanduser().absolute()  # '.' has no name
    with open_entries(source) as entries:
        settings = read_json(entries, CONFIG_FILE)
        found = read_header(entries[WEIGHTS_FILE])
        technique = technique_of(settings, adapted_layers(found))
        config = _run_config(technique, model, name or source.stem)
        provenance = read_json(entries, PROVENANCE_FILE) if PROVENANCE_FILE in entries else {}
        base = skeleton(model)
        _check_prefix(found, base)
        config = _shortened(config, base)
        notes_on_base = [*base.notes, *config.technique.notes(base)]
        attached = _attach(config.technique, base)
        _check_heads(settings, attached)
        weights = _checked_weights(entries[WEIGHTS_FILE], found, _shapes(config.technique, attached), base)
        digest = sha256_of(entries[WEIGHTS_FILE])
    notes = (
        f"imported from {source.name} (sha256 of its weights {digest}); nothing is known here of its data and training",
        _about_base(provenance, base),
        *notes_on_base,
    )
    return _record(config, base, attached, weights, root, source.name, notes)


def _run_config(technique: Technique, model: ModelSpec, name: str) -> RunConfig:
    from pydantic import ValidationError

    from tunelab.errors import explain

    stage = Stage(data=DataSpec(source=UNKNOWN_DATA), name="imported")
    values = {"model": model, "technique": technique.model_dump(), "stages": (stage,), "name": name[:60]}
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise UserError(f"This adapter can't be used on {model.repo_id}: {explain(error)}") from None


def _attach(technique: Technique, base: Base) -> Any:
    """The technique on the base without weights: what the names and shapes of its tensors have to be."""
    return technique.wrapped(base) if isinstance(technique, PeftTechnique) else technique.attach(base)


def _shapes(technique: Technique, attached: Any) -> Shapes:
    from peft import get_peft_model_state_dict

    if isinstance(technique, VirtualTokens):
        return {"prompt_embeddings": tuple(attached.prompt_encoder["default"].embedding.weight.shape)}
    if isinstance(technique, PeftTechnique):
        state = get_peft_model_state_dict(attached, save_embedding_layers=False)
    else:
        state = {name: parameter for name, parameter in attached.named_parameters() if parameter.requires_grad}
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def adapted_layers(names: Iterable[str]) -> list[str]:
    """The layers of the base that LoRA weights of these names are of."""
    return sorted({name.split(".lora_")[0].removeprefix(PEFT_PREFIX) for name in names if ".lora_" in name})


def _shortened(config: RunConfig, base: Base) -> RunConfig:
    """The configuration with the layers that were told one by one named as shortly as this base allows."""
    technique = config.technique
    if not isinstance(technique, LoRA) or isinstance(technique.target_modules, str):
        return config
    linear = places.linear_layers(base.model)
    if not all(target in linear for target in technique.target_modules):
        return config
    targets = tuple(places.shortest(technique.target_modules, base.model))
    return config.model_copy(update={"technique": technique.model_copy(update={"target_modules": targets})})


def _check_prefix(found: Iterable[str], base: Base) -> None:
    """Refuse weights of the same layers under other names: they are of a model that is built otherwise.

    Raises:
        UserError: with both names.
    """
    theirs, ours = adapted_layers(found), list(places.linear_layers(base.model))
    if not theirs or set(theirs) & set(ours):
        return
    alike = [(name, own) for name in theirs for own in ours if _tail(name) == _tail(own)]
    if alike:
        name, own = alike[0]
        raise UserError(
            f"The adapter does not fit {base.spec.repo_id}: it adapts {name[:100]}, which is {own} here. It was made "
            "for a model that is built otherwise, e.g. one that also sees images. Give the model it was made for."
        )


def _tail(name: str) -> str:
    """A layer's name from its number on: '0.mlp.down_proj'."""
    return re.sub(r"^.*?\.(?=\d+\.)", "", name)


def _check_heads(settings: dict[str, Any], attached: Any) -> None:
    """Refuse a prefix that would be divided among heads otherwise than it was trained.

    Raises:
        UserError: with both numbers.
    """
    heads = settings.get("num_attention_heads")
    if settings.get("peft_type") != "PREFIX_TUNING" or heads is None:
        return
    if heads != (made := attached.peft_config["default"].num_attention_heads):
        raise UserError(
            f"{CONFIG_FILE}: num_attention_heads = {str(heads)[:20]}: the prefix is of a model that has so many heads "
            f"of keys and values; this one keeps {made}."
        )


def _checked_weights(entry: Entry, found: Shapes, expected: Shapes, base: Base) -> dict[str, Tensor]:
    """The adapter's weights in fp32, read after names and shapes were found to be what this base needs."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    fits = f"The adapter does not fit {base.spec.repo_id}"
    for names, what in ((expected.keys() - found.keys(), "lacks"), (found.keys() - expected.keys(), "has unknown")):
        if names:
            raise UserError(f"{fits}: it {what} {len(names)} weights, e.g. {sorted(names)[0][:200]}.")
    for name, shape in expected.items():
        if found[name] != shape:
            raise UserError(f"{fits}: {name} has the shape {found[name]}, needed is {shape}.")
    try:
        with entry.open() as file:
            weights = load(file.read(entry.size))
    except SafetensorError as error:
        raise UserError(f"{WEIGHTS_FILE} is damaged: {error}. Export the adapter again.") from None
    broken = next((name for name, value in weights.items() if not value.isfinite().all()), None)
    if broken:
        raise UserError(f"{WEIGHTS_FILE}: {broken} holds values that are not finite: the adapter can't answer.")
    return {name: value.float() for name, value in weights.items()}


def _about_base(provenance: dict[str, Any], base: Base) -> str:
    trained_on = provenance.get("base_sha256")
    if not isinstance(trained_on, str):
        return f"it does not say on which weights it was trained; its shapes fit {base.spec.repo_id}"
    if trained_on == base.sha256:
        return f"it was trained on exactly the weights of {base.spec.repo_id}"
    return (
        f"warning: it was trained on other weights than {base.spec.repo_id} has (sha256 {trained_on[:12]}… then, "
        f"{base.sha256[:12]}… here), so its answers can differ from those it was trained for"
    )


def _record(
    config: RunConfig,
    base: Base,
    attached: Any,
    weights: dict[str, Tensor],
    root: str | Path | None,
    origin: str,
    notes: tuple[str, ...],
) -> Run:
    """The run; an interrupted import leaves nothing."""
    run = Run.create(config, root, imported_from=origin)
    try:
        with replacing(run.adapter_path) as folder:
            _write(folder, config.technique, base, attached, weights)
        run.append(_started(config, base, attached, weights, notes))
        run.append(Finished(step=0, seconds=0, heldout_loss=None, adapter=run.adapter_path.name, peak_memory_bytes=0))
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)
        raise
    return run


def _write(folder: Path, technique: Technique, base: Base, attached: Any, weights: dict[str, Tensor]) -> None:
    """The adapter as the technique saves it. Its configuration is the one made here, not the one received."""
    from safetensors.torch import save_file

    if not isinstance(technique, PeftTechnique):
        attached.load_state_dict(weights, strict=False, assign=True)  # the base stays without weights
        technique.save(attached, folder, base)
        return
    config = attached.peft_config["default"].to_dict()
    config |= {"base_model_name_or_path": base.published_name, "inference_mode": True}
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1, sort_keys=True, default=sorted))
    write_provenance(folder, technique, base)


def _started(
    config: RunConfig, base: Base, attached: Any, weights: dict[str, Tensor], notes: tuple[str, ...]
) -> Started:
    """The facts of the base, by which it is recognised; everything about training is zero, for none happened here."""
    from tunelab.model.quantization import count_parameters

    return Started(
        device=str(base.device),
        dtype=base.dtype_name,
        quantization=config.model.quantization,
        attention="not trained here",
        fast=False,
        threads=0,
        base_sha256=base.sha256,
        base_revision=base.revision,
        trainable_parameters=sum(weight.numel() for weight in weights.values()),
        total_parameters=count_parameters(attached),
        steps_total=0,
        learning_rates=(),
        train_rows=(),
        heldout_rows=(),
        data_sha256=(),
        notes=notes,
    )
