"""Conversations to a token store, with a model's chat template."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from longalign_core.config.batching import EncodingConfig
from longalign_core.config.runtime import Runtime
from longalign_core.errors import DataError
from longalign_core.progress import track
from longalign_core.record_files import in_groups, read_records, write_records
from longalign_core.records import Conversation, Reject
from longalign_core.sources import local_path
from longalign_core.stage import Counts, Inputs, stage
from longalign_core.stages.licences import carry_licences
from longalign_core.token_store import SequenceRow, TokenStore, TokenStoreWriter

if TYPE_CHECKING:
    from longalign_core.chat_format import ChatFormat

# Encodings take about 200 bytes a character while they are in memory.
_CHARACTERS_AT_ONCE = 1_000_000


@stage("encode", version=2)
def encode(config: EncodingConfig, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """Conversations to a token store, with the chat template that was used beside it."""
    from longalign_core.chat_format import ChatFormat

    (conversations,) = inputs["conversations"]
    chat_format = ChatFormat.load(local_path(config.tokenizer, runtime), config.template)
    rejects: list[Reject] = []
    stream = read_records(conversations / "conversations.parquet", Conversation)
    with TokenStoreWriter(out_dir) as writer:
        rows = _encode_stream(stream, chat_format, config, writer, rejects)
        num_sequences = write_records(out_dir / "sequences.parquet", rows, SequenceRow)
        write_records(out_dir / "rejects.parquet", rejects, Reject)
        (out_dir / "chat_template.jinja").write_text(chat_format.template.source, encoding="utf-8")
        if not num_sequences:
            raise DataError(
                "no conversation could be encoded"
                + (f"; the first: {rejects[0].detail}" if rejects else ": there is none; check the mixture")
            )
    store = TokenStore.open(out_dir)
    cuts = [row.cut_tokens for row in read_records(out_dir / "sequences.parquet", SequenceRow) if row.cut_tokens]
    return {
        "sequences": num_sequences,
        "tokens": int(store.lengths.sum()),
        "target_tokens": int(store.targets.sum()),
        "shortened": len(cuts),
        "cut_tokens": sum(cuts),
        "rejects": len(rejects),
        **carry_licences((conversations,), out_dir / "sequences.parquet", out_dir),
    }


def _encode_stream(
    conversations: Iterable[Conversation],
    chat_format: ChatFormat,
    config: EncodingConfig,
    writer: TokenStoreWriter,
    rejects: list[Reject],
) -> Iterator[SequenceRow]:
    """Encode and store conversations as they come; those that cannot be go to `rejects`."""
    with track("encode", total=None, unit="conversations") as step:
        for group in in_groups(conversations, _num_characters, _CHARACTERS_AT_ONCE):
            results = chat_format.encode(group, config.max_tokens, config.shorten)
            for conversation, result in zip(group, results, strict=True):
                if isinstance(result, DataError):
                    rejects.append(
                        Reject(
                            id=conversation.id,
                            source=conversation.source,
                            stage="encode",
                            reason=result.reason,
                            detail=str(result),
                        )
                    )
                    continue
                yield SequenceRow(
                    sequence=writer.append(result.token_ids, result.is_target),
                    conversation_id=conversation.id,
                    document_id=conversation.document_id,
                    source=conversation.source,
                    length=len(result.token_ids),
                    targets=int(result.is_target.sum()),
                    cut_tokens=result.cut_tokens,
                )
            step(len(group))


def _num_characters(conversation: Conversation) -> int:
    return sum(len(message.content) for message in conversation.messages)
