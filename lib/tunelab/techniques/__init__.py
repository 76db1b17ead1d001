"""How to adapt a model: one readable module per technique. Adding one is a file and a line here.

The classes are configuration (frozen pydantic, no torch at import) and behaviour (`attach`, `save`, `load`, `off`),
so that what a technique is can be read in one place.
"""

from tunelab.techniques.base import Technique
from tunelab.techniques.bottleneck import BottleneckAdapter
from tunelab.techniques.full import FullFineTuning
from tunelab.techniques.ia3 import IA3
from tunelab.techniques.lora import LoRA
from tunelab.techniques.prefix import PrefixTuning
from tunelab.techniques.prompt import PromptTuning

AnyTechnique = LoRA | FullFineTuning | PrefixTuning | PromptTuning | BottleneckAdapter | IA3

TECHNIQUES: dict[str, type[Technique]] = {
    technique.model_fields["kind"].default: technique
    for technique in (LoRA, FullFineTuning, PrefixTuning, PromptTuning, BottleneckAdapter, IA3)
}

__all__ = [
    "IA3",
    "TECHNIQUES",
    "AnyTechnique",
    "BottleneckAdapter",
    "FullFineTuning",
    "LoRA",
    "PrefixTuning",
    "PromptTuning",
    "Technique",
]
