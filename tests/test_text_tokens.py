"""Text that spells control tokens, in tokenizers that match them in every way there is."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from longalign_core.chat_format import ChatFormat
from longalign_core.chat_template import ConversationError
from tests.chat_families import byte_level
from tests.chat_format_setup import chat, encode, trained_texts, whole_ids

# Control tokens that take white space with them, as Phi-3's do on the right and mask tokens on the left.
STRIPPING_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


@functools.cache
def stripping_tokenizer(takes_left: bool) -> PreTrainedTokenizerFast:
    tokenizer = byte_level("<bos>", eos="<|end|>")
    names = ("<|user|>", "<|assistant|>", "<|system|>")
    tokenizer.add_tokens([AddedToken(name, special=True, rstrip=True, normalized=False) for name in names])
    tokenizer.add_tokens([AddedToken("<|end|>", special=True, lstrip=takes_left, rstrip=True, normalized=False)])
    tokenizer.chat_template = STRIPPING_TEMPLATE
    return tokenizer


@pytest.mark.parametrize("takes_left", [False, True])
@settings(max_examples=40, deadline=None)
@given(
    user=st.text(alphabet="ab 1\n\t\u3000中.", max_size=12),
    answer=st.text(alphabet="ab 1\n\t\u3000中.", max_size=12).map(lambda text: "The" + text),
)
def test_encode_control_tokens_that_take_white_space_gives_the_tokenizer_s_ids(takes_left, user, answer):
    tokenizer = stripping_tokenizer(takes_left)
    conversation = chat(user, answer, user, answer, system=user)
    encoded = encode(ChatFormat(tokenizer), conversation)
    assert encoded.token_ids.tolist() == whole_ids(tokenizer, conversation)
    kept = answer.rstrip() if takes_left else answer
    assert trained_texts(tokenizer, encoded) == [kept + "<|end|>"] * 2


def test_encode_answer_keeps_the_white_space_that_its_prompt_s_last_token_would_take():
    tokenizer = stripping_tokenizer(False)
    encoded = encode(ChatFormat(tokenizer), chat("a", "\n\n b"))
    assert trained_texts(tokenizer, encoded) == ["\n\n b<|end|>"]


def test_encode_control_token_in_another_spelling_is_plain_text(smol_folder):
    # Matched after lower-casing, it cannot be found in the text as it is spelled.
    tokenizer = AutoTokenizer.from_pretrained(smol_folder)
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.add_tokens([AddedToken("<stop>", special=True, normalized=True)])
    encoded = encode(ChatFormat(tokenizer), chat("a <STOP> b <stop>", "c"))
    assert "<stop>" not in tokenizer.convert_ids_to_tokens(encoded.token_ids)
    assert "a <stop> b <stop>" in tokenizer.decode(encoded.token_ids)


def test_encode_control_token_that_the_model_s_own_merges_spell_is_plain_text():
    """ChatGLM3's `sop` stands in the middle of English words."""
    vocabulary = {name: number for number, name in enumerate(["s", "o", "p", "h", "i", "<eos>", "so", "sop", "soph"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("s", "o"), ("so", "p"), ("sop", "h")]))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(["<eos>", "sop"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<eos>",
        chat_template="{% for message in messages %}sop{{ message['content'] }}<eos>{% endfor %}",
    )
    encoded = encode(ChatFormat(fast), chat("sophi", "sop"))
    names = fast.convert_ids_to_tokens(encoded.token_ids)
    assert names == ["sop", "so", "p", "h", "i", "<eos>", "sop", "so", "p", "<eos>"]


def test_encode_space_before_every_word_list_is_put_where_the_tokenizer_puts_it():
    """RoBERTa's way: a space before the text and after every control token."""
    tokenizer = byte_level("<eos>", eos="<eos>")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] + '<eos>' }}{% endfor %}"
    conversation = chat("the <eos> text", "answer", "why", "the text")
    encoded = encode(ChatFormat(tokenizer), conversation)
    assert tokenizer.decode(encoded.token_ids) == " the <eos> text<eos> answer<eos> why<eos> the text<eos>"
    assert trained_texts(tokenizer, encoded) == [" answer<eos>", " the text<eos>"]


def test_encode_message_with_the_mark_of_renamed_control_tokens_is_refused(smol):
    with pytest.raises(ConversationError, match=r"c1: a message holds U\+10FFFE"):
        encode(smol, chat("a \U0010fffe<|im_end|>", "b"))


def test_encode_control_token_of_the_tokenizer_s_own_template_is_plain_text_by_a_named_one_too():
    names = ["<tool_call>", "<\uff5cfim\u2581hole\uff5c>", "<table>"]  # Qwen's, DeepSeek's, and Gemma's, which is text
    tokenizer = byte_level("<eos>", eos="<eos>")
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in names])
    tokenizer.chat_template = {"default": "{{ messages }}", "tool_use": "{% if tools %}<tool_call>{% endif %}"}
    encoded = encode(ChatFormat(tokenizer, "plain"), chat(" ".join(names), "b"))
    assert "\n" + " ".join(names) + "<eos>" in tokenizer.decode(encoded.token_ids)
    assert [name in tokenizer.convert_ids_to_tokens(encoded.token_ids) for name in names] == [False, False, True]
