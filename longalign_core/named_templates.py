"""Chat templates of ours, for tokenizers that come without one; a recipe names them.

Each writes what its family was trained on: begin and end tokens, spaces and line breaks included. All
of them put text around messages and strip them at most; none looks into a message, so what they write
depends on the roles alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from longalign_core.errors import InputError

# Ours alone, for a base model without control tokens of its own: a turn ends with the tokenizer's own end
# token, so that no token has to be added.
_PLAIN = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)

# Llama-2 chat, as Meta's generation code lays out a dialogue: every pair of turns is a text of its own between
# BOS and EOS, messages are stripped, and the system message stands in the first user message.
_LLAMA_2 = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' and loop.index0 == 1 and messages[0]['role'] == 'system' %}"
    "{{ bos_token + '[INST] <<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n'"
    " + message['content'].rstrip() + ' [/INST]' }}"
    "{% elif message['role'] == 'user' %}{{ bos_token + '[INST] ' + message['content'] | trim + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}"
    "{% endif %}{% endfor %}"
)

# Llama-3 Instruct, as Meta's reference tokenizer encodes a dialogue: BOS once, a header for each message, an
# end-of-turn token after each; messages are stripped. 3.1 and later print dates before it: they come with a
# template of their own.
_LLAMA_3 = (
    "{{ '<|begin_of_text|>' }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim"
    " + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

# ChatGLM3, as its tokenizer's `build_single_message` and its prompt guide have it: no token ends a turn. The
# model stops by writing the next speaker's `<|user|>`, and after the last answer the end token, which the
# encoder adds to a template that leaves its last turn open. The line break after a role is the model's own to
# write, since its prompt ends with `<|assistant|>`. Each message is encoded apart there, so sentencepiece puts
# a space before it: the one in front of the content here. (LongAlign's reference wrote ChatGLM2's rounds.)
_CHATGLM3 = (
    "{{ '[gMASK]sop' }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n ' + message['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def _mistral(space: str) -> str:
    """Mistral Instruct, as mistral-common's V3 instruct tokenizers encode a request, `space` before each message.

    BOS once, EOS after every answer. V3 moves a system message along to the last user message, which would hide
    it from all answers but the last when a sequence trains every one; it stays with the first, as in V1.
    """
    return (
        "{{ bos_token }}{% for message in messages %}"
        "{% if message['role'] == 'user' %}"
        f"{{{{ '[INST]{space}' }}}}"
        "{% if loop.index0 == 1 and messages[0]['role'] == 'system' %}{{ messages[0]['content'] + '\n\n' }}{% endif %}"
        "{{ message['content'] + '[/INST]' }}"
        f"{{% elif message['role'] == 'assistant' %}}{{{{ '{space}' + message['content'] | trim + eos_token }}}}"
        "{% endif %}{% endfor %}"
    )


# Qwen2.5 Instruct: ChatML without BOS; where no system message is given, the model's own stands in its place.
_QWEN_2_5 = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Qwen3, the hybrid models, in the mode without thinking: ChatML, and an empty think block is part of the prompt
# of every answer. Qwen's own template takes the block out of earlier turns; here they keep it, because one
# sequence trains all its answers and each must follow exactly what the prompt of its turn shows.
_QWEN_3 = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class NamedTemplate:
    """A chat template and what it asks of a tokenizer.

    Attributes:
        source: Its jinja text.
        tokens: Control tokens that it spells out.
        needs_bos: Whether it begins with the tokenizer's own begin token, whatever that is called.
    """

    source: str
    tokens: tuple[str, ...] = ()
    needs_bos: bool = False


_CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
NAMED_TEMPLATES: dict[str, NamedTemplate] = {
    "plain": NamedTemplate(_PLAIN),
    "llama-2": NamedTemplate(_LLAMA_2, needs_bos=True),
    "llama-3": NamedTemplate(_LLAMA_3, ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    "chatglm3": NamedTemplate(_CHATGLM3, ("[gMASK]", "sop", "<|system|>", "<|user|>", "<|assistant|>")),
    "mistral": NamedTemplate(_mistral(" "), ("[INST]", "[/INST]"), needs_bos=True),
    "mistral-tekken": NamedTemplate(_mistral(""), ("[INST]", "[/INST]"), needs_bos=True),
    "qwen2.5": NamedTemplate(_QWEN_2_5, _CHATML_TOKENS),
    "qwen3": NamedTemplate(_QWEN_3, (*_CHATML_TOKENS, "<think>", "</think>")),
}


def choose_template(name: str | None, tokenizer: Any) -> str:
    """Jinja text of the template that a recipe names, or of the tokenizer's own.

    Args:
        name: One of `NAMED_TEMPLATES`; None for the tokenizer's own.
        tokenizer: A transformers tokenizer.

    Raises:
        InputError: The name is unknown, the tokenizer lacks tokens of the template, or none is named and it
            has none for general use.
    """
    known = {added.content for added in tokenizer.added_tokens_decoder.values()}
    if name is None:
        if not tokenizer.chat_template:
            raise InputError(
                "the tokenizer has no chat template; set encoding.template to one of ours: "
                f"{', '.join(NAMED_TEMPLATES)}"
            )
        if isinstance(tokenizer.chat_template, dict) and "default" not in tokenizer.chat_template:
            raise InputError(
                f"the tokenizer has chat templates for special uses alone: {', '.join(tokenizer.chat_template)}; "
                f"set encoding.template to one of ours: {', '.join(NAMED_TEMPLATES)}"
            )
        own: str = tokenizer.get_chat_template()
        return own
    if name not in NAMED_TEMPLATES:
        raise InputError(f"encoding.template is {name!r}, which is none of ours: {', '.join(NAMED_TEMPLATES)}")
    template = NAMED_TEMPLATES[name]
    missing = [token for token in template.tokens if token not in known]
    if template.needs_bos and tokenizer.bos_token is None:
        missing.append("a begin token (bos_token)")
    if missing:
        fitting = [other for other, kind in NAMED_TEMPLATES.items() if _fits(kind, known, tokenizer.bos_token)]
        own_one = "null for the tokenizer's own template, or " if tokenizer.chat_template else ""
        raise InputError(
            f"encoding.template {name} needs {', '.join(missing)}, which the tokenizer lacks as control tokens; "
            f"set encoding.template to {own_one}one that fits it: {', '.join(fitting)}"
        )
    return template.source


def own_template_text(tokenizer: Any) -> str:
    """Jinja text of all chat templates that a tokenizer comes with; empty where it has none."""
    own = tokenizer.chat_template or ""
    return "\n".join(own.values()) if isinstance(own, dict) else own


def _fits(template: NamedTemplate, known: set[str], bos_token: str | None) -> bool:
    return known.issuperset(template.tokens) and not (template.needs_bos and bos_token is None)
