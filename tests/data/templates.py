"""Chat templates of every kind, as short as they can be, and byte-level tokenizers that have them."""

from __future__ import annotations

from typing import Any

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start|>' + m.role + '<|stop|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|stop|>\n\n' }}{% endif %}"
)
ALTERNATE = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}" + ALTERNATE + "{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + ALTERNATE
    + "{{ '<start_of_turn>' + m.role | replace('assistant', 'model') + '\n' + m.content | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# what ends the conversation stands behind its last turn
PHI3 = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
# two tokens end a turn
COHERE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|turn|><|' + m.role + '|>' + m.content }}"
    "{% if m.role == 'assistant' %}{{ '<|end_response|>' }}{% endif %}{{ '<|end_turn|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|turn|><|assistant|>' }}{% endif %}"
)
# the last turn is left open
OPEN = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}"
    "{% if not loop.last or m.role == 'user' %}{{ '\n<|end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
FALCON = (
    "{% for m in messages %}{% if not loop.first %}{{ '\n\n' }}{% endif %}"
    "{{ m.role | capitalize + ': ' + m.content | trim }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)
# no turn has an end, but each a beginning
BEGINNINGS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ROLES = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
HASHES = (
    "{% for m in messages %}{{ '### ' + m.role + ':\n' + m.content + '\n### stop\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### assistant:\n' }}{% endif %}"
)
# thoughts stand in the last answer, empty where there are none; earlier answers are rendered without
QWEN3 = (
    "{% set last = namespace(user=0) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.index0 > last.user %}"
    "{% set thoughts = m.content.split('</think>')[0].split('<think>')[-1] if '</think>' in m.content else '' %}"
    "{{ '<think>\n' + thoughts.strip('\n') + '\n</think>\n\n' }}{% endif %}"
    "{{ m.content.split('</think>')[-1].lstrip('\n') + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# the prompt opens thoughts, and no answer is rendered with any
R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% endif %}"
    "{% if m.role == 'user' %}{{ '<|User|>' + m.content }}{% endif %}"
    "{% if m.role == 'assistant' %}{{ '<|Assistant|>' + m.content.split('</think>')[-1] + eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"
)
# the prompt has ended thoughts already
NO_THOUGHTS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' and loop.last %}"
    "{{ '<think>\n' + (m.content.split('</think>')[0].split('<think>')[-1] if '</think>' in m.content else '\n') }}"
    "{{ '</think>\n\n' }}{% endif %}{{ m.content.split('</think>')[-1].lstrip('\n') + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}{% endif %}"
)
# a word stands between the prompt and the answer
CHANNEL = (
    "{% for m in messages %}{{ '<|start|>' + m.role }}{% if m.role == 'assistant' %}{{ '<|channel|>final' }}{% endif %}"
    "{{ '<|message|>' + m.content + ('<|return|>' if loop.last and m.role == 'assistant' else '<|end|>') }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
# the system text stands before the last question, and so moves
MOVING = (
    "{% set last = messages | selectattr('role', 'equalto', 'user') | list | last %}"
    "{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '[INST]' + (messages[0].content + '\n\n' if m == last and messages[0].role == 'system' else '') + m.content "
    "+ '[/INST]' }}{% elif m.role == 'assistant' %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
)


def tokenizer(
    template: str | None = CHATML,
    special: str = "<|endoftext|> <|im_start|> <|im_end|>",
    eos: str | None = "<|endoftext|>",
    bos: str | None = None,
    words: tuple[str, ...] = (),
    calls_with: str = "$A",
) -> Any:
    """Special tokens, then one token per byte, then `words`; `calls_with` is what calling it puts around a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = special.split()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*names, *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single=calls_with, special_tokens=[(name, vocabulary[name]) for name in names if name in calls_with.split()]
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=bos, eos_token=eos, additional_special_tokens=names, chat_template=template
    )
    made.add_tokens(list(words))
    return made


KINDS = {
    "chatml": lambda: tokenizer(),
    "chatml, the end is no special token": lambda: tokenizer(
        special="<|endoftext|>", words=("<|im_start|>", "<|im_end|>")
    ),
    "chatml, no tokens of it": lambda: tokenizer(special="<|endoftext|>"),
    "llama3": lambda: tokenizer(
        LLAMA3, "<|bos|> <|eos|> <|start|> <|stop|> <|eot_id|>", "<|eos|>", "<|bos|>", calls_with="<|bos|> $A"
    ),
    "mistral": lambda: tokenizer(MISTRAL, "<s> </s>", "</s>", "<s>", calls_with="<s> $A"),
    "gemma": lambda: tokenizer(GEMMA, "<bos> <eos> <start_of_turn> <end_of_turn>", "<eos>", "<bos>"),
    "phi3": lambda: tokenizer(PHI3, "<|endoftext|> <|user|> <|assistant|> <|system|> <|end|>"),
    "cohere": lambda: tokenizer(
        COHERE, "<bos> <eos> <|turn|> <|user|> <|assistant|> <|system|> <|end_response|> <|end_turn|>", "<eos>", "<bos>"
    ),
    "open": lambda: tokenizer(OPEN, "<|endoftext|> <|user|> <|assistant|> <|system|> <|end|>"),
    "falcon": lambda: tokenizer(FALCON, "<|endoftext|>"),
    "beginnings": lambda: tokenizer(BEGINNINGS, "<|endoftext|> <|im_start|>"),
    "roles": lambda: tokenizer(ROLES, "<|endoftext|> <|user|> <|assistant|> <|system|>"),
    "hashes": lambda: tokenizer(HASHES, "<|endoftext|>"),
    "qwen3": lambda: tokenizer(QWEN3, words=("<think>", "</think>")),
    "r1": lambda: tokenizer(R1, "<bos> <eos> <|User|> <|Assistant|>", "<eos>", "<bos>", words=("<think>", "</think>")),
    "no thoughts": lambda: tokenizer(NO_THOUGHTS, words=("<think>", "</think>")),
    "channel": lambda: tokenizer(
        CHANNEL, "<|endoftext|> <|start|> <|end|> <|return|> <|message|> <|channel|>", "<|return|>"
    ),
    "moving": lambda: tokenizer(MOVING, "<s> </s>", "</s>", "<s>"),
    "none": lambda: tokenizer(None, "<|endoftext|>"),
    "none, bos": lambda: tokenizer(None, "<s> </s>", "</s>", "<s>", calls_with="<s> $A"),
}
