"""How to adapt a model: one readable module per technique. Adding one is a file and a line here.

The classes are configuration (frozen pydantic, no torch at import) and behaviour (`attach`, `save`, `load`, `off`),
so that what a technique is can be read in one place.
"""

from tunelab.techniques.base import Technique
from tunelab.techniques.lora import LoRA

AnyTechnique = LoRA

TECHNIQUES: dict[str, type[Technique]] = {LoRA.model_fields["kind"].default: LoRA}

__all__ = ["TECHNIQUES", "AnyTechnique", "LoRA", "Technique"]
