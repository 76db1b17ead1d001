"""Prompt tuning: learned embeddings before the text, and nothing else.

Lester et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning", section 2: P embeddings (P, C) are put
before those of the text and trained; the model is frozen. Section 3.2 compares how they start: random, from embeddings
of the vocabulary, or from those of fitting text, which wins, above all for small models. Before the first step the
output is that of the base with this text before it, not the base's. The paper's point is scale: a model of 135M
parameters has little to be steered by a prompt. It lives in the input: it can't be merged, and rows with and without it
can't share a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from tunelab.techniques.virtual import VirtualTokens, check_start, refused_where_it_fails, token_ids

if TYPE_CHECKING:
    from torch import nn

    from tunelab.data import Encoded
    from tunelab.model.load import Base


class PromptTuning(VirtualTokens):
    """Trained embeddings in place of a written prompt: the smallest change to how a model is used."""

    kind: Literal["prompt"] = "prompt"
    num_virtual_tokens: int = Field(
        64, ge=1, le=1024, description="Length of the learned prompt in tokens; each costs context and time."
    )
    initialisation: Literal["text", "vocabulary", "random"] = Field(
        "text",
        description="What the learned embeddings start from (Lester et al. 2021, section 3.2): those of a text, of "
        "tokens drawn from the vocabulary, or noise.",
    )
    init_text: str | None = Field(
        None, description="The text for initialisation 'text'. None: the first training rows."
    )

    title: ClassVar[str] = "Prompt tuning"
    summary: ClassVar[str] = "Learned embeddings before the text: one vector per virtual token; weak on small models."
    default_learning_rate: ClassVar[float] = 2e-2
    merge_refusal: ClassVar[str | None] = "prompt tuning stands in the input, before the text, and not in the weights"

    def attach(self, base: Base, rows: Sequence[Encoded] = ()) -> nn.Module:
        import torch

        ids = None
        if self.initialisation == "text":
            ids = token_ids(base, self.num_virtual_tokens, self.init_text, rows)
        with refused_where_it_fails(self, base):
            model = self.wrapped(base)
            learned = model.prompt_encoder["default"].embedding.weight
            with torch.no_grad():
                if ids is not None:
                    learned.copy_(base.model.get_input_embeddings()(torch.tensor(ids, device=base.device)))
                    check_start(self, base, model, ids)
                elif self.initialisation == "random":
                    learned.uniform_(-0.5, 0.5)  # section 3.2
        return model

    def outline(self, base: Base) -> nn.Module:
        return self.model_copy(update={"initialisation": "random"}).wrapped(base)

    def peft_config(self, base: Base) -> Any:
        from peft import PromptTuningConfig, PromptTuningInit

        # a start from text is made here, so that PEFT need not load a tokenizer by name
        vocabulary = self.initialisation == "vocabulary"
        embeddings: Any = base.model.get_input_embeddings()
        config = base.model.config.get_text_config()
        return PromptTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=self.num_virtual_tokens,
            token_dim=embeddings.weight.shape[1],  # not the hidden size in every model (OPT 350M)
            # nothing is made of them, but PEFT asks for them and does not find them in every model
            num_layers=config.num_hidden_layers,
            num_attention_heads=getattr(config, "num_attention_heads", None) or 1,
            prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB if vocabulary else PromptTuningInit.RANDOM,
        )
