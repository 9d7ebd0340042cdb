"""Every named template, with a tokenizer as its family's: round trip, targets, prompts, control tokens, cuts."""

from __future__ import annotations

import functools
import re
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from longalign_core.chat_format import ChatFormat
from longalign_core.chat_template import ConversationError
from longalign_core.errors import InputError
from longalign_core.named_templates import NAMED_TEMPLATES
from longalign_core.records import Conversation
from tests.chat_families import byte_level, families, sentencepiece_bpe
from tests.chat_format_setup import chat, encode, trained_texts, whole_ids

every_family = pytest.mark.parametrize("name", NAMED_TEMPLATES)

SPELLINGS = [
    "<s>",
    "</s>",
    "<unk>",
    "[INST]",
    "[/INST]",
    "<|user|>",
    "<|assistant|>",
    "<|eot_id|>",
    "<|im_end|>",
    "sop",
]
SPELLINGS += [
    "<|im_start|>",
    "<|start_header_id|>",
    "[gMASK]",
    "<|begin_of_text|>",
    "<think>",
    "<eos>",
    "<<SYS>>",
    "soap",
]
WORDS = [
    "the answer",
    "ab",
    "1234",
    "é",
    "中文",
    "😀",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t",
    "\u3000",
    "<|",
    "|>",
    "def f(x):",
    "~",
]
plain_texts = st.lists(st.sampled_from(WORDS), max_size=6).map("".join)
texts = st.lists(st.sampled_from(WORDS + SPELLINGS), max_size=6).map("".join)


def conversations(contents: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str | None, list[tuple[str, str]]]]:
    turns = st.lists(st.tuples(contents, contents), min_size=1, max_size=4)
    return st.tuples(st.none() | contents, turns.filter(lambda drawn: any(answer.strip() for _, answer in drawn)))


def as_chat(system: str | None, turns: list[tuple[str, str]]) -> Conversation:
    return chat(*chain.from_iterable(turns), system=system)


@functools.cache
def format_of(name: str) -> ChatFormat:
    return ChatFormat(families()[name].tokenizer, name)


def spells_control(name: str, conversation: Conversation) -> bool:
    controls = format_of(name).template.controls
    return any(control in message.content for message in conversation.messages for control in controls)


@every_family
@settings(max_examples=50, deadline=None)
@given(drawn=conversations(texts))
def test_encode_any_conversation_reads_back_with_its_answers_as_targets(name, drawn):
    encoded = encode(format_of(name), as_chat(*drawn))
    parts = families()[name].write(*drawn)
    backend = families()[name].tokenizer.backend_tokenizer
    assert backend.decode(encoded.token_ids.tolist(), skip_special_tokens=False) == "".join(text for text, _ in parts)
    assert trained_texts(families()[name].tokenizer, encoded) == [text for text, trained in parts if trained]


@every_family
@settings(max_examples=50, deadline=None)
@given(drawn=conversations(texts))
def test_encode_any_conversation_has_the_template_s_control_tokens_alone(name, drawn):
    system, turns = drawn
    encoded = encode(format_of(name), as_chat(system, turns))
    names = families()[name].tokenizer.convert_ids_to_tokens(encoded.token_ids)
    controls = {added.content for added in families()[name].tokenizer.added_tokens_decoder.values()}
    assert sum(token in controls for token in names) == families()[name].num_controls(
        int(system is not None), len(turns)
    )
    for token, count in families()[name].places.items():
        assert names.count(token) == count(int(system is not None), len(turns))


@every_family
@settings(max_examples=50, deadline=None)
@given(drawn=conversations(plain_texts))
def test_encode_every_answer_follows_the_ids_of_its_prompt_encoded_alone(name, drawn):
    system, turns = drawn
    encoded = encode(format_of(name), as_chat(system, turns))
    starts = np.flatnonzero(np.diff(encoded.is_target, prepend=False) & encoded.is_target)
    asked = [number for number, (_, answer) in enumerate(turns) if answer.strip()]
    assert len(starts) == len(asked)
    for start, number in zip(starts, asked, strict=True):
        shown = as_chat(system, [*turns[:number], (turns[number][0], "")]).messages[:-1]
        prompt = families()[name].tokenizer.apply_chat_template(
            [{"role": message.role, "content": message.content} for message in shown],
            chat_template=NAMED_TEMPLATES[name].source,
            add_generation_prompt=True,
            tokenize=False,
        )
        ids = families()[name].tokenizer.backend_tokenizer.encode(prompt, add_special_tokens=False).ids
        # A prompt of several turns repeats earlier answers; the white space one began with may be joined there to
        # what stands before it.
        if not any(answer[:1].isspace() and answer.strip() for _, answer in turns[:number]):
            assert encoded.token_ids[:start].tolist() == ids


@every_family
@settings(max_examples=30, deadline=None)
@given(
    drawn=conversations(
        st.lists(st.sampled_from(["the answer", "ab", "中文", " 12", "\n\nwhy"]), max_size=5).map("x".join)
    )
)
def test_encode_answers_that_begin_with_a_word_gives_the_tokenizer_s_ids_of_the_whole_text(name, drawn):
    conversation = as_chat(drawn[0], [(user, "The " + answer) for user, answer in drawn[1]])
    chat_format = format_of(name)
    text = chat_format.template.render(conversation).text
    assert not spells_control(name, conversation)
    expected = families()[name].tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    assert encode(chat_format, conversation).token_ids.tolist() == expected


@every_family
@settings(max_examples=30, deadline=None)
@given(
    unit=st.sampled_from(["中文 ", "😀", "word ", "a\nb", "<|user|>"]),
    num=st.integers(1, 150),
    limit=st.integers(60, 400),
)
def test_encode_long_document_loses_its_middle_but_neither_question_nor_answer(name, unit, num, limit):
    question, answer = "\n\nWhat is the answer?", "The answer is in the text."
    conversation = chat("Begin. " + unit * num + question, answer, "And why?", "Because.")
    full = encode(format_of(name), conversation)
    try:
        encoded = encode(format_of(name), conversation, limit)
    except ConversationError as error:
        assert error.reason == "too long" and limit < 150
        return
    assert len(encoded.token_ids) <= limit
    assert len(encoded.token_ids) + encoded.cut_tokens == len(full.token_ids)
    # At most a character of several tokens goes beyond what has to go.
    assert len(full.token_ids) <= limit or limit - len(encoded.token_ids) < 8
    assert encoded.token_ids[encoded.is_target].tolist() == full.token_ids[full.is_target].tolist()
    text = families()[name].tokenizer.decode(encoded.token_ids)
    assert "\ufffd" not in text
    if limit >= 200:
        assert question in text and "Begin." in text


@every_family
def test_encode_cut_right_or_dropped_counts_what_is_gone(name):
    conversation = chat("Why?", "word " * 300)
    chat_format = format_of(name)
    full, encoded = encode(chat_format, conversation), encode(chat_format, conversation, 120, shorten="right")
    assert encoded.token_ids.tolist() == full.token_ids[:120].tolist()
    assert encoded.is_target.tolist() == full.is_target[:120].tolist()
    assert encoded.cut_tokens == len(full.token_ids) - 120
    (dropped,) = chat_format.encode([conversation], 120, "drop")
    assert dropped.reason == "too long" and "c1" in str(dropped)


def test_encode_chatglm3_ends_a_turn_with_the_next_speaker_and_the_last_with_the_end_token():
    encoded = encode(format_of("chatglm3"), chat("a", "b", "a", "b"))
    # As the model's own tokenizer has it: the role, a line break encoded by itself, the message encoded by itself.
    turn = "<|user|>▁\n▁a<|assistant|>▁\n▁b"
    names = families()["chatglm3"].tokenizer.convert_ids_to_tokens(encoded.token_ids)
    assert "".join(names) == f"[gMASK]sop{turn}{turn}</s>"
    trained = [name for name, target in zip(names, encoded.is_target, strict=True) if target]
    assert "".join(trained) == "▁\n▁b<|user|>▁\n▁b</s>"


@pytest.mark.parametrize("system", ["s", "Be brief.\nVery. "])
def test_encode_tokenizer_with_its_own_template_of_a_family_gives_the_same_ids_by_name(smol_folder, system):
    # SmolLM2's own template is ChatML; given a system message it differs from Qwen2.5's in nothing.
    tokenizer = AutoTokenizer.from_pretrained(smol_folder)
    conversation = chat("Why?", "So.", " And\n\n", "Yes, 中文.", system=system)
    by_name = encode(ChatFormat(tokenizer, "qwen2.5"), conversation)
    own = encode(ChatFormat(tokenizer), conversation)
    assert by_name.token_ids.tolist() == own.token_ids.tolist() == whole_ids(tokenizer, conversation)
    assert by_name.is_target.tolist() == own.is_target.tolist()


def test_format_named_template_without_its_tokens_names_them_and_what_fits():
    tokenizer = sentencepiece_bpe(legacy=True)
    with pytest.raises(InputError) as caught:
        ChatFormat(tokenizer, "qwen3")
    message = str(caught.value)
    assert re.search(r"qwen3 needs <\|im_start\|>, <\|im_end\|>, <think>, </think>, which the tokenizer lacks", message)
    assert message.endswith("one that fits it: plain, llama-2")


def test_format_named_template_that_begins_with_bos_needs_one():
    tokenizer = byte_level("<|im_start|>", "<|im_end|>", eos="<|im_end|>")
    with pytest.raises(InputError, match=r"llama-2 needs a begin token.*: plain, qwen2\.5$"):
        ChatFormat(tokenizer, "llama-2")


# As Mistral's own of 8x22B and NeMo: a system message goes along to the last user message.
SYSTEM_LAST = (
    "{% set turns = messages[1:] if messages[0]['role'] == 'system' else messages %}"
    "{% set users = turns | selectattr('role', 'equalto', 'user') | list %}"
    "{{ bos_token }}{% for message in turns %}{% if message['role'] == 'user' %}{{ '[INST] ' }}"
    "{% if message == users[-1] and messages[0]['role'] == 'system' %}{{ messages[0]['content'] + '\n\n' }}{% endif %}"
    "{{ message['content'] + '[/INST]' }}"
    "{% else %}{{ ' ' + message['content'] | trim + eos_token }}{% endif %}{% endfor %}"
)


def test_encode_template_that_moves_the_system_message_has_every_answer_s_own_ids():
    tokenizer = sentencepiece_bpe("[INST]", "[/INST]", legacy=False)
    tokenizer.chat_template = SYSTEM_LAST
    chat_format = ChatFormat(tokenizer)
    turns = ("the question", "the answer", "why", "the text")
    without, moved = encode(chat_format, chat(*turns)), encode(chat_format, chat(*turns, system="soap"))
    assert trained_texts(tokenizer, moved) == [" the answer</s>", " the text</s>"]
    assert moved.token_ids[moved.is_target].tolist() == without.token_ids[without.is_target].tolist()
    assert moved.token_ids.tolist() == whole_ids(tokenizer, chat(*turns, system="soap"))
