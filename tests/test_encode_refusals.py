"""Bad conversations and tokenizers through the stage that encodes: rejected by name, or refused with what to do."""

from __future__ import annotations

import pytest

from longalign_core.config.batching import EncodingConfig
from longalign_core.config.runtime import Runtime
from longalign_core.errors import DataError, InputError
from longalign_core.record_files import read_records, write_records
from longalign_core.records import Conversation, Message, Reject
from longalign_core.stages.encoding import encode
from tests.chat_families import byte_level
from tests.chat_format_setup import chat

RUNTIME = Runtime(store="unused")


def with_roles(id: str, *roles: str) -> Conversation:
    messages = tuple(Message(role=role, content="the text") for role in roles)
    return Conversation(id=id, messages=messages, source="books", task_type="chat", language="en")


def run(tmp_path, *conversations: Conversation, template: str | None = "plain", own_template: str | None = None):
    folder = tmp_path / "tokenizer"
    tokenizer = byte_level("<eos>", eos="<eos>")
    tokenizer.chat_template = own_template
    tokenizer.save_pretrained(folder)
    write_records(tmp_path / "conversations.parquet", conversations, Conversation)
    config = EncodingConfig(tokenizer=str(folder), template=template)
    out_dir = tmp_path / "out"
    out_dir.mkdir()
    return encode.function(config, {"conversations": (tmp_path,)}, out_dir, RUNTIME), out_dir


def test_encode_stage_turns_out_of_order_are_rejects_that_name_the_conversation(tmp_path):
    bad = [
        with_roles("two-users", "user", "user", "assistant"),
        with_roles("no-answer", "user"),
        with_roles("open-end", "user", "assistant", "user"),
    ]
    counts, out_dir = run(tmp_path, bad[0], chat("the question", "the answer", id="good"), *bad[1:])
    assert (counts["sequences"], counts["rejects"]) == (1, 3)
    rejects = {reject.id: reject for reject in read_records(out_dir / "rejects.parquet", Reject)}
    assert {reject.reason for reject in rejects.values()} == {"turns"}
    assert "conversation two-users: its turns are user, user, assistant" in rejects["two-users"].detail
    assert "conversation no-answer: it has no assistant turn" in rejects["no-answer"].detail
    assert "conversation open-end: its last turn is the user's" in rejects["open-end"].detail


def test_encode_stage_no_good_conversation_says_what_is_wrong_with_the_first(tmp_path):
    with pytest.raises(DataError, match="no conversation could be encoded; the first: conversation two-users"):
        run(tmp_path, with_roles("two-users", "user", "user", "assistant"))


def test_encode_stage_tokenizer_without_template_lists_ours(tmp_path):
    with pytest.raises(InputError, match=r"set encoding\.template to one of ours: plain, llama-2, .*qwen3$"):
        run(tmp_path, chat("the question", "the answer"), template=None)


def test_encode_stage_template_that_does_not_fit_the_tokenizer_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"llama-3 needs <\|begin_of_text\|>.*one that fits it: plain$"):
        run(tmp_path, chat("the question", "the answer"), template="llama-3")


@pytest.mark.parametrize("own_template", [None, "{% for one in messages %}{{ one['content'] }}<eos>{% endfor %}"])
def test_encode_stage_named_template_beside_the_tokenizers_own_is_warned_of(tmp_path, caplog, own_template):
    run(tmp_path, chat("the question", "the answer"), own_template=own_template)
    assert ("encoding.template plain is used although" in caplog.text) == (own_template is not None)
