"""What tests of the instruct stage share: documents, one run, and its product."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from longalign_core.config.instruct import InstructConfig
from longalign_core.config.models import ChatModel
from longalign_core.config.runtime import Runtime
from longalign_core.record_files import read_records, write_records
from longalign_core.records import Conversation, Document, Reject, text_sha256
from longalign_core.stages.instruct import instruct

_ASKED_ENDS = ("and so on.", "等依次编号。", "questions.", "tasks.", "个问题。", "个任务。")
CONFIG = InstructConfig(generator=ChatModel(model="writer", max_tokens=100, context_tokens=100_000))


def document_of(name: str, text: str, language: str = "en", num_tokens: int | None = None) -> Document:
    return Document(
        id=name,
        text=text,
        source=name.split("/")[0],
        language=language,
        origin="tests",
        sha256=text_sha256(text),
        licence="CC0-1.0",
        num_tokens=num_tokens,
    )


def documents_of(number: int) -> list[Document]:
    return [
        document_of(f"corpus/{n}", f"Document {n} tells of {n}. " * 3, "zh" if n % 5 == 0 else "en")
        for n in range(number)
    ]


def run(folder: Path, documents: list[Document], url: str | None, out: str = "out", **settings: object) -> dict:
    write_records(folder / "selected" / "documents.parquet", documents, Document)
    # Whatever else select leaves in its folder is not a document.
    write_records(folder / "selected" / "rejects.parquet", [], Reject)
    endpoints = {"generator": url} if url else {}
    runtime = Runtime(scratch=folder / "scratch", store=str(folder / "store"), endpoints=endpoints, **settings)
    return instruct.function(CONFIG, {"documents": (folder / "selected",)}, folder / out, runtime)


def product(folder: Path, out: str = "out") -> tuple[list[Conversation], list[Reject]]:
    return (
        list(read_records(folder / out / "conversations.parquet", Conversation)),
        list(read_records(folder / out / "rejects.parquet", Reject)),
    )


def number_in(body: dict) -> int:
    return int(body["messages"][0]["content"].split()[1])


def is_answer_call(body: dict) -> bool:
    return body["messages"][0]["content"][-10:].strip().endswith(("?", "？"))


def words_of(body: dict) -> str:
    """The last turn, without the document it may begin with."""
    return body["messages"][-1]["content"]


def is_questions_call(body: dict) -> bool:
    return any(words_of(body).endswith(end) for end in _ASKED_ENDS)


def task_reply(body: dict) -> str:
    """Five questions where a list is asked for, each with the prompt's mark; else a sentence.

    In Chinese where the last line that was asked is.
    """
    mark = hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()
    is_chinese = re.search("[一-鿿]", words_of(body).rpartition("\n")[2]) is not None
    if is_questions_call(body):
        places = [mark[start : start + 8] for start in range(0, 40, 8)]
        if is_chinese:
            return "\n".join(f"{n}: {one}与{one[::-1]}在{mark[n:8]}中有何不同？" for n, one in enumerate(places, 1))
        return "\n".join(f"{n}: How do {one} and {one[::-1]} differ in {mark[n:8]}?" for n, one in enumerate(places, 1))
    if is_chinese:
        return f"这段文本讲的就是它所讲的内容，它的标记是{mark[:8]}，除此之外没有别的说法。"
    return f"The text says what it says, and its mark is {mark[:8]}."
