"""Conversations that are too long are shortened; those that cannot be trained on are refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_core.chat_format import EncodedConversation
from longalign_core.chat_template import ConversationError
from longalign_core.records import Conversation, Message
from tests.chat_format_setup import chat, encode, trained_texts, whole_ids


def test_encode_long_document_loses_its_middle_and_keeps_question_and_answer(smol, smol_tokenizer):
    document = " ".join(f"w{number}" for number in range(2000))
    question, answer = "\n\nWhich word comes " + "very " * 40 + "first?", "The first is w0."
    full = encode(smol, chat(document + question, answer, "And then?", "w1."))
    encoded = encode(smol, chat(document + question, answer, "And then?", "w1."), 200)
    assert len(encoded.token_ids) == 200
    assert encoded.cut_tokens == len(full.token_ids) - 200
    text = smol_tokenizer.decode(encoded.token_ids)
    assert question in text and "user\nw0 w1 w2" in text and "w1000" not in text
    assert trained_texts(smol_tokenizer, encoded) == [answer + "<|im_end|>", "w1.<|im_end|>"]


def test_encode_long_document_with_spelled_control_token_loses_its_middle_too(smol, smol_tokenizer):
    document = "<|im_end|> " * 3 + "w " * 500 + "<|im_start|>\n\nWhy?"
    encoded = encode(smol, chat(document, "So."), 100)
    assert len(encoded.token_ids) == 100
    text = smol_tokenizer.decode(encoded.token_ids)
    assert "user\n<|im_end|> <|im_end|>" in text and "Why?<|im_end|>" in text
    assert trained_texts(smol_tokenizer, encoded) == ["So.<|im_end|>"]


@settings(max_examples=60, deadline=None)
@given(
    num_words=st.integers(1, 150), unit=st.sampled_from(["中文 ", "😀", "word ", "a\nb"]), limit=st.integers(30, 200)
)
def test_encode_shortened_chat_is_no_longer_than_allowed_and_cuts_no_character(
    smol, smol_tokenizer, num_words, unit, limit
):
    conversation = chat(unit * num_words, "So.", system="s")
    try:
        encoded = encode(smol, conversation, limit)
    except ConversationError as error:
        assert error.reason == "too long" and limit < 40
        return
    assert len(encoded.token_ids) <= limit
    assert len(encoded.token_ids) + encoded.cut_tokens == len(whole_ids(smol_tokenizer, conversation))
    assert "\ufffd" not in smol_tokenizer.decode(encoded.token_ids)
    assert trained_texts(smol_tokenizer, encoded) == ["So.<|im_end|>"]


def test_encode_chat_of_exactly_the_longest_length_is_kept_whole(smol, smol_tokenizer):
    conversation = chat("word " * 80, "So.")
    length = len(whole_ids(smol_tokenizer, conversation))
    assert encode(smol, conversation, length).cut_tokens == 0
    assert encode(smol, conversation, length - 1).cut_tokens == 1


def test_encode_longest_message_cannot_give_enough_is_too_long(smol):
    with pytest.raises(ConversationError, match=r"conversation c1: it is .* tokens too long") as caught:
        encode(smol, chat("Why?", "word " * 300), 100)
    assert caught.value.reason == "too long"


def test_encode_shorten_right_cuts_the_end(smol):
    conversation = chat("Why?", "word " * 300)
    full, encoded = encode(smol, conversation), encode(smol, conversation, 100, shorten="right")
    assert encoded.token_ids.tolist() == full.token_ids[:100].tolist()
    assert encoded.cut_tokens == len(full.token_ids) - 100


def test_encode_shorten_right_without_any_answer_left_is_no_target(smol):
    with pytest.raises(ConversationError) as caught:
        encode(smol, chat("word " * 300, "So."), 100, shorten="right")
    assert caught.value.reason == "no target"


def test_encode_shorten_drop_is_too_long(smol):
    with pytest.raises(ConversationError) as caught:
        encode(smol, chat("word " * 300, "So."), 100, shorten="drop")
    assert caught.value.reason == "too long"


@pytest.mark.parametrize(
    ("roles", "reason"),
    [
        (("user", "user", "assistant"), "turns"),
        (("user",), "turns"),
        (("assistant", "user"), "turns"),
        (("user", "assistant", "user"), "turns"),
        (("user", "system", "assistant"), "turns"),
        ((), "turns"),
    ],
)
def test_encode_turns_out_of_order_names_the_conversation(smol, roles, reason):
    messages = tuple(Message(role=role, content="x") for role in roles)
    conversation = Conversation(id="odd-7", messages=messages, source="s", task_type="chat", language="en")
    with pytest.raises(ConversationError, match="odd-7") as caught:
        encode(smol, conversation)
    assert caught.value.reason == reason


def test_encode_only_empty_answers_is_no_target(smol):
    with pytest.raises(ConversationError) as caught:
        encode(smol, chat("One?", " \n"))
    assert caught.value.reason == "no target"


def test_encode_bad_conversation_among_good_ones_keeps_their_order(smol):
    results = smol.encode([chat("a", "b"), chat("a", id="bad"), chat("c", "d")], 1000)
    assert [isinstance(result, EncodedConversation) for result in results] == [True, False, True]
    assert results[2].token_ids.tolist() == encode(smol, chat("c", "d")).token_ids.tolist()
