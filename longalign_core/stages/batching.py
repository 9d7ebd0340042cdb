"""Stages from conversations to optimizer steps: `encode` and `batches`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from longalign_core.config.batching import BatchingConfig, EncodingConfig
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
    from longalign_core.batch_plan import EpochOrder
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


@stage("batches", version=1)
def batches(config: BatchingConfig, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """A token store to a batch plan for every epoch, with what it is worth."""
    from longalign_core.batch_plan import BatchPlan
    from longalign_core.batching.cost import CostModel
    from longalign_core.batching.report import PlanReport
    from longalign_core.batching.strategies import Batching, order_epochs

    (tokens,) = inputs["tokens"]
    store = TokenStore.open(tokens)
    batching = Batching(
        strategy=config.strategy,
        capacity=config.capacity,
        packs_per_step=config.packs_per_step,
        alike=config.alike or config.packs_per_step,
        seed=config.seed,
        cost_model=CostModel(),
    )
    report = PlanReport(
        lengths=store.lengths,
        targets=store.targets,
        capacity=config.capacity,
        packs_per_step=config.packs_per_step,
        alpha=config.alpha,
        normaliser=config.normaliser,
        cost_model=batching.cost_model,
    )

    def reported() -> Iterator[EpochOrder]:
        with track("batches", total=config.epochs, unit="epochs") as step:
            for order in order_epochs(store.lengths, batching, config.epochs):
                report.add(order)
                yield order
                step(1)

    BatchPlan.write(
        out_dir,
        strategy=config.strategy,
        capacity=config.capacity,
        packs_per_step=config.packs_per_step,
        alike=batching.alike,
        alpha=config.alpha,
        normaliser=config.normaliser,
        seed=config.seed,
        lengths=store.lengths,
        targets=store.targets,
        epochs=reported(),
    )
    figures = report.figures()
    (out_dir / "report.json").write_bytes(
        orjson.dumps(asdict(figures), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    )
    return {
        "steps": figures.steps,
        "packs": figures.packs,
        "sequences": store.num_sequences,
        "epochs": config.epochs,
        "empty_slots": figures.empty_slots,
        "utilisation": round(figures.utilisation, 6),
        "idle": round(figures.idle[str(batching.alike)], 6),
        "ess": round(figures.ess, 6),
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
