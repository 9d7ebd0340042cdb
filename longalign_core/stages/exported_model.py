"""What makes a folder of weights one that others load, talk to and stop at the right place. Needs no torch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson

from longalign_core.chat_format import ChatFormat
from longalign_core.chat_template import ConversationError
from longalign_core.records import Conversation, Message

TEMPLATE, TOKENIZER, GENERATION = "chat_template.jinja", "tokenizer_config.json", "generation_config.json"


def set_chat_format(folder: Path, template: Path) -> None:
    """Give a model the template it was trained with, and have generation stop where its turn ends.

    Args:
        folder: Model and tokenizer, as transformers saves them.
        template: Jinja file.

    Raises:
        InputError: The tokenizer cannot be loaded, or has no end token.
    """
    set_template(folder, template.read_text(encoding="utf-8"))
    set_generation(folder, ChatFormat.load(folder))


def set_template(folder: Path, text: str) -> None:
    """Make a template the only one of a folder's tokenizer: readers differ in which of several they take."""
    for file in folder.glob("chat_template*"):
        file.unlink()
    shutil.rmtree(folder / "additional_chat_templates", ignore_errors=True)
    (folder / TEMPLATE).write_text(text, encoding="utf-8")
    if (settings := folder / TOKENIZER).is_file():
        values = orjson.loads(settings.read_bytes())
        for name in ("chat_template", "name_or_path"):  # the second is a path of the machine that saved it
            values.pop(name, None)
        if values.get("tokenizer_class") == "TokenizersBackend":
            # The name that transformers 5 gives the same class, unknown to its version 4 and to servers upon it.
            values["tokenizer_class"] = "PreTrainedTokenizerFast"
        _write(settings, values)


def has_template(folder: Path) -> bool:
    """Whether a folder's tokenizer comes with a chat template for general use."""
    if (folder / TEMPLATE).is_file():
        return True
    settings = folder / TOKENIZER
    return settings.is_file() and bool(orjson.loads(settings.read_bytes()).get("chat_template"))


def set_generation(folder: Path, chat_format: ChatFormat) -> None:
    """Write generation_config.json: special tokens as the tokenizer has them, sampling settings as they were.

    Generation ends at the token that closes the assistant's turn, and at whatever ended it before.

    Args:
        folder: Model and tokenizer.
        chat_format: Of this tokenizer and the template in use.
    """
    path = folder / GENERATION
    values = orjson.loads(path.read_bytes()) if path.is_file() else {}
    tokenizer = chat_format.tokenizer
    ends = [end_of_turn(chat_format), tokenizer.eos_token_id, *_ids(values.get("eos_token_id"))]
    ends = [end for end in dict.fromkeys(ends) if end < chat_format.vocabulary]
    values["eos_token_id"] = ends if len(ends) > 1 else ends[0]
    if tokenizer.bos_token_id is not None:
        values["bos_token_id"] = tokenizer.bos_token_id
    if tokenizer.pad_token_id is not None:
        values["pad_token_id"] = tokenizer.pad_token_id
    elif values.get("pad_token_id") is None:
        values["pad_token_id"] = tokenizer.eos_token_id
    values.pop("_from_model_config", None)
    _write(path, values)


def end_of_turn(chat_format: ChatFormat) -> int:
    """Id of the token that a trained model closes its turn with."""
    messages = (Message(role="user", content="question"), Message(role="assistant", content="answer"))
    conversation = Conversation(
        id="end of turn", messages=messages, task_type="chat", source="none", language="en", document_id=None
    )
    (encoded,) = chat_format.encode([conversation], max_tokens=1 << 20)
    if isinstance(encoded, ConversationError):
        raise encoded
    return int(encoded.token_ids[encoded.is_target][-1])


def _ids(value: Any) -> list[int]:
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def _write(path: Path, values: dict[str, Any]) -> None:
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2))
    unfinished.replace(path)
