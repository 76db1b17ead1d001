"""Tiny random models of many families, each saved as a folder with the tokenizer and the habits of a real checkpoint.

A `Family` is a few lines: which architecture, which control tokens, which chat template (or none), what its generation
settings know of where an answer ends. Two layers, 64 wide, one token per byte. Weights are drawn wide enough
(INITIALIZER_RANGE) that attention decides what comes next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

INITIALIZER_RANGE = 0.2
POSITIONS = 256  # learned or declared; enough for the tests' rows
VOCABULARY = 320  # 256 bytes, a blank line and the control tokens, padded to a multiple of 64
BLANK_LINE = ("Ċ", "Ċ")  # the one merge
LINE_ENDS = r"\s*[\r\n]+"  # kept together, as newer tokenizers do
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": POSITIONS,
    "initializer_range": INITIALIZER_RANGE,
}  # fmt: skip

LLAMA3 = (
    "{% for message in messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim "
    "+ '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# thoughts stand in the answer to the last question, empty where there are none; earlier answers are rendered without
QWEN3 = (
    "{% set last = namespace(user=0) %}"
    "{% for message in messages %}{% if message['role'] == 'user' %}{% set last.user = loop.index0 %}{% endif %}"
    "{% endfor %}"
    "{% for message in messages %}{% set content = message['content'] %}{% set thoughts = '' %}"
    "{% if message['role'] == 'assistant' and '</think>' in content %}"
    "{% set thoughts = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and loop.index0 > last.user %}"
    "{{ '<think>\n' + thoughts + '\n</think>\n\n' }}{% endif %}"
    "{{ content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
_GEMMA_TURNS = (
    "{% for message in turns %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') + message['content'] | trim "
    "+ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
GEMMA2 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% set first = '' %}{% set turns = messages %}" + _GEMMA_TURNS
)
GEMMA3 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}" + _GEMMA_TURNS
)
# what ends the conversation comes once, behind its last turn
PHI3 = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
FALCON = (
    "{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}{% set system = messages[0]['content'] %}"
    "{% else %}{% set turns = messages %}{% set system = '' %}{% endif %}"
    "{% for message in turns %}{% if loop.first %}{{ system.strip() }}{% endif %}"
    "{{ '\n\n' + ('User' if message['role'] == 'user' else 'Assistant') + ': ' + message['content'].strip() }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)
OLMO2 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% if not (loop.last and message['role'] == 'assistant') %}{{ '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
# the prompt of a base without a chat template
PLAIN_PROMPT = "### Question:\n{prompt}\n\n### Answer:\n"


@dataclass(frozen=True)
class Family:
    """How the checkpoints of one family are."""

    name: str
    architecture: Callable[[dict[str, Any]], Any]
    """The model, from the ids of the special tokens."""
    eos: str
    """The tokenizer's end-of-sequence token."""
    bos: str | None = None
    pad: str | None = None
    others: tuple[str, ...] = ()
    """Further special tokens."""
    words: tuple[str, ...] = ()
    """Added tokens that are ordinary words."""
    template: str | None = None
    end: str | None = None
    """The token that ends an assistant's turn; None: `eos`."""
    stops: tuple[str, ...] = ()
    """What the generation settings name as ends; none: `eos` alone."""
    adds_bos: bool = False
    """Whether calling the tokenizer puts `bos` in front."""
    generation: dict[str, Any] = field(default_factory=dict)
    """Further generation settings of such checkpoints."""
    learned: str = "{}"
    """What the template makes of an answer, its end aside."""

    def tokenizer(self) -> Any:
        """The control tokens, then one token per byte, and one for two line ends."""
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast

        special = list(dict.fromkeys(token for token in (self.pad, self.bos, self.eos, *self.others) if token))
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: index for index, token in enumerate([*special, *alphabet, "".join(BLANK_LINE)])}
        backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[BLANK_LINE]))
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(LINE_ENDS), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        backend.decoder = decoders.ByteLevel()
        if self.adds_bos:
            backend.post_processor = processors.TemplateProcessing(
                single=f"{self.bos} $A", pair=f"{self.bos} $A $B", special_tokens=[(self.bos, vocabulary[self.bos])]
            )
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend,
            bos_token=self.bos,
            eos_token=self.eos,
            pad_token=self.pad,
            additional_special_tokens=list(self.others),
            chat_template=self.template,
        )
        tokenizer.add_tokens(list(self.words))
        return tokenizer

    def save(self, folder: Path, seed: int = 0) -> Path:
        """The folder, with a random model in fp32 and its tokenizer."""
        import torch
        from transformers import GenerationConfig

        tokenizer = self.tokenizer()
        ids = {name: getattr(tokenizer, f"{name}_id") for name in ("bos_token", "eos_token", "pad_token")}
        special = {f"{name}_id": index for name, index in ids.items() if index is not None}
        torch.manual_seed(seed)
        model = self.architecture(special)
        stops = [tokenizer.convert_tokens_to_ids(token) for token in self.stops]
        model.generation_config = GenerationConfig(**special | ({"eos_token_id": stops} if stops else {}))
        model.generation_config.update(**self.generation)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    def end_ids(self, tokenizer: Any) -> list[int]:
        """Every token at which an answer of this family may end."""
        return sorted(tokenizer.convert_tokens_to_ids(t) for t in {self.eos, self.end or self.eos, *self.stops})

    def prompt_ids(self, tokenizer: Any, prompt: str) -> list[int]:
        """The tokens after which the model answers, as transformers makes them."""
        if self.template is None:
            return tokenizer(PLAIN_PROMPT.format(prompt=prompt)).input_ids
        turns = [{"role": "user", "content": prompt}]
        return tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)


def _from_config(config: str, model: str, **settings: Any) -> Callable[[dict[str, Any]], Any]:
    """Makes models of transformers' classes of these names."""

    def make(special: dict[str, Any]) -> Any:
        import transformers

        made = getattr(transformers, config)(**{"bos_token_id": None, "pad_token_id": None} | settings | special)
        return getattr(transformers, model)(made)

    return make


def _sized(config: str, model: str, **settings: Any) -> Callable[[dict[str, Any]], Any]:
    """As `_from_config`, with the sizes as most families name them."""
    return _from_config(config, model, **SIZES | settings)


_SAMPLED = {"do_sample": True, "temperature": 0.6, "top_p": 0.9}
_NO_THOUGHTS = "<think>\n\n</think>\n\n"

FAMILIES = {
    family.name: family
    for family in (
        Family(
            "llama",
            _sized("LlamaConfig", "LlamaForCausalLM"),
            bos="<|begin_of_text|>",
            eos="<|end_of_text|>",
            others=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
            template=LLAMA3,
            end="<|eot_id|>",
            adds_bos=True,
            generation=_SAMPLED,
        ),
        Family(
            "mistral",
            _sized("MistralConfig", "MistralForCausalLM", sliding_window=POSITIONS),
            bos="<s>",
            eos="</s>",
            others=("<unk>",),
            template=MISTRAL,
            adds_bos=True,
            learned=" {}",
        ),
        Family(
            "qwen2",
            _sized("Qwen2Config", "Qwen2ForCausalLM", tie_word_embeddings=True),
            eos="<|endoftext|>",
            pad="<|endoftext|>",
            others=("<|im_start|>", "<|im_end|>"),
            template=CHATML,
            end="<|im_end|>",
        ),
        Family(
            "qwen3",
            _sized("Qwen3Config", "Qwen3ForCausalLM", head_dim=64, tie_word_embeddings=True),
            eos="<|im_end|>",
            pad="<|endoftext|>",
            others=("<|im_start|>",),
            words=("<think>", "</think>"),
            template=QWEN3,
            stops=("<|im_end|>", "<|endoftext|>"),
            generation=_SAMPLED | {"top_k": 20},
            learned=_NO_THOUGHTS + "{}",
        ),
        Family(
            "gemma2",
            _sized("Gemma2Config", "Gemma2ForCausalLM", head_dim=32, query_pre_attn_scalar=32, sliding_window=64),
            bos="<bos>",
            eos="<eos>",
            pad="<pad>",
            others=("<start_of_turn>", "<end_of_turn>"),
            template=GEMMA2,
            end="<end_of_turn>",
            adds_bos=True,
        ),
        Family(
            "gemma3",
            _sized(
                "Gemma3TextConfig",
                "Gemma3ForCausalLM",
                head_dim=32,
                query_pre_attn_scalar=32,
                sliding_window=32,
                layer_types=["sliding_attention", "full_attention"],
            ),
            bos="<bos>",
            eos="<eos>",
            pad="<pad>",
            others=("<start_of_turn>", "<end_of_turn>"),
            template=GEMMA3,
            end="<end_of_turn>",
            stops=("<eos>", "<end_of_turn>"),
            adds_bos=True,
            generation={"do_sample": True, "top_k": 64, "top_p": 0.95},
        ),
        Family(
            "phi3",
            _sized("Phi3Config", "Phi3ForCausalLM", sliding_window=POSITIONS - 1),
            bos="<s>",
            eos="<|endoftext|>",
            pad="<|endoftext|>",
            others=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
            template=PHI3,
            end="<|end|>",
            stops=("<|endoftext|>", "<|assistant|>", "<|end|>"),
        ),
        Family(
            "gpt2",
            _from_config(
                "GPT2Config",
                "GPT2LMHeadModel",
                vocab_size=VOCABULARY,
                n_embd=64,
                n_layer=2,
                n_head=4,
                n_positions=POSITIONS,
                initializer_range=INITIALIZER_RANGE,
            ),
            bos="<|endoftext|>",
            eos="<|endoftext|>",
        ),
        Family(
            "opt",
            _from_config(
                "OPTConfig",
                "OPTForCausalLM",
                vocab_size=VOCABULARY,
                hidden_size=64,
                word_embed_proj_dim=64,
                ffn_dim=128,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=POSITIONS,
                init_std=INITIALIZER_RANGE,
            ),
            bos="</s>",
            eos="</s>",
            pad="<pad>",
            adds_bos=True,
        ),
        Family(
            "falcon",
            _from_config(
                "FalconConfig",
                "FalconForCausalLM",
                vocab_size=VOCABULARY,
                hidden_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                multi_query=True,
                parallel_attn=True,
                bias=False,
                max_position_embeddings=POSITIONS,
                initializer_range=INITIALIZER_RANGE,
            ),
            bos="<|endoftext|>",
            eos="<|endoftext|>",
            template=FALCON,
            learned=" {}",
        ),
        Family(
            "bloom",
            _from_config(
                "BloomConfig",
                "BloomForCausalLM",
                vocab_size=VOCABULARY,
                hidden_size=64,
                n_layer=2,
                n_head=4,
                initializer_range=INITIALIZER_RANGE,
            ),
            bos="<s>",
            eos="</s>",
            pad="<pad>",
            others=("<unk>",),
        ),
        Family(
            "olmo2",
            _sized("Olmo2Config", "Olmo2ForCausalLM"),
            bos="<|endoftext|>",
            eos="<|endoftext|>",
            pad="<|pad|>",
            template=OLMO2,
        ),
        Family(
            "gpt_neox",
            _from_config(
                "GPTNeoXConfig",
                "GPTNeoXForCausalLM",
                vocab_size=VOCABULARY,
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=POSITIONS,
                initializer_range=INITIALIZER_RANGE,
            ),
            bos="<|endoftext|>",
            eos="<|endoftext|>",
        ),
    )
}
# experts, and a gate of one row that decides how much of the shared one is heard
QWEN2_MOE = Family(
    "qwen2_moe",
    _sized(
        "Qwen2MoeConfig",
        "Qwen2MoeForCausalLM",
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
        shared_expert_intermediate_size=128,
    ),
    eos="<|endoftext|>",
    pad="<|endoftext|>",
    others=("<|im_start|>", "<|im_end|>"),
    template=CHATML,
    end="<|im_end|>",
    stops=("<|im_end|>", "<|endoftext|>"),
)
