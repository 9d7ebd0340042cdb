"""Runs of the mixture stage over sets written for them."""

from __future__ import annotations

import gzip
import json

from backports import zstd

from longalign_core.config.mixture import InstructionSet, MixtureConfig
from longalign_core.config.runtime import Runtime
from longalign_core.record_files import read_records, write_records
from longalign_core.records import Conversation, Message, Reject
from longalign_core.stages.mixture import mixture

PACKED = {"jsonl": bytes, "json": bytes, "gz": gzip.compress, "zst": zstd.compress}


def long_conversation(number: int) -> Conversation:
    messages = (Message(role="user", content=f"document {number}"), Message(role="assistant", content="answer"))
    return Conversation(
        id=f"books:{number}", messages=messages, source="books", task_type="summary", language="en",
        document_id=f"books:{number}", model="generator",
    )  # fmt: skip


def chat(number: int) -> dict:
    return {"messages": [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": f"a{number}"}]}


class Room:
    """A folder with the inputs of one run."""

    def __init__(self, folder):
        self.folder = folder
        self.num_runs = 0

    def set_of(self, rows, name="chat", form="jsonl", **fields) -> InstructionSet:
        file = self.folder / f"{name}.{form}"
        lines = "\n".join(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
        return self.file_of(PACKED[form.rpartition(".")[2]](lines.encode()), file.name, name, **fields)

    def file_of(self, data: bytes, file_name: str, name="chat", **fields) -> InstructionSet:
        file = self.folder / file_name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return InstructionSet(name=name, location=str(file), **fields)

    def run(self, num_long=0, order=None, **fields):
        self.num_runs += 1
        long_ones = [long_conversation(number) for number in order or range(num_long)]
        write_records(self.folder / f"in{self.num_runs}" / "conversations.parquet", long_ones, Conversation)
        out = self.folder / f"out{self.num_runs}"
        inputs = {"conversations": (self.folder / f"in{self.num_runs}",)}
        counts = mixture.function(MixtureConfig(**fields), inputs, out, Runtime())
        self.out = out
        return (
            counts,
            list(read_records(out / "conversations.parquet", Conversation)),
            list(read_records(out / "rejects.parquet", Reject)),
        )
