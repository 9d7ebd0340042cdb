"""Conversations to a token store, with a model's chat template."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from longalign_core.config.batching import EncodingConfig
from longalign_core.config.runtime import Runtime
from longalign_core.engine import Engine, InProcess, current_engine
from longalign_core.errors import DataError
from longalign_core.progress import track
from longalign_core.record_files import read_records, record_schema
from longalign_core.records import Reject
from longalign_core.stage import Counts, Inputs, stage
from longalign_core.stages.encoding_ranges import RANGE_BYTES, RangeJob, encode_range, load_format, plan_ranges
from longalign_core.stages.licences import carry_licences
from longalign_core.stages.model_folders import tokenizer_path
from longalign_core.stages.outcomes import SHORT_BATCH, write_rejects
from longalign_core.token_store import SequenceRow, Shard, TokenStore, seal, token_type

log = logging.getLogger(__name__)
SEQUENCES, CONVERSATIONS = "sequences.parquet", "conversations.parquet"


@stage("encode", version=3)
def encode(config: EncodingConfig, inputs: Inputs, out_dir: Path, runtime: Runtime) -> Counts:
    """Conversations to a token store, with the chat template that was used beside it.

    Ranges of them are encoded by the runtime's engine; those that a killed run finished are used.
    """
    return encode_in_ranges(config, inputs, out_dir, runtime)


def encode_in_ranges(
    config: EncodingConfig, inputs: Inputs, out_dir: Path, runtime: Runtime, *, range_bytes: int = RANGE_BYTES
) -> Counts:
    """See `encode`.

    Args:
        config: How conversations are encoded.
        inputs: The folder of conversations.
        out_dir: The product's folder.
        runtime: Where work is done.
        range_bytes: Text that is worth a shard of its own.

    Raises:
        DataError: No conversation could be encoded.
        InputError: The tokenizer cannot be used.
    """
    (conversations,) = inputs["conversations"]
    file = conversations / CONVERSATIONS
    jobs, template = _jobs(config, file, out_dir, runtime, range_bytes)
    shards = [shard for shard in _encode_all(jobs, _engine(runtime, jobs), file) if shard is not None]
    rejected = write_rejects(out_dir, (one for job in jobs for one in read_records(job.rejects, Reject, SHORT_BATCH)))
    if not shards:
        first = next(iter(read_records(out_dir / "rejects.parquet", Reject)), None)
        raise DataError(
            "no conversation could be encoded"
            + (f"; the first: {first.detail}" if first else ": there is none; check the mixture")
        )
    shortened, cut_tokens = _write_sequences(jobs, out_dir / SEQUENCES)
    (out_dir / "chat_template.jinja").write_text(template, encoding="utf-8")
    licences = carry_licences((conversations,), out_dir / SEQUENCES, out_dir)
    seal(out_dir, token_type(jobs[0].vocabulary), shards)
    store = TokenStore.open(out_dir)
    return {
        "sequences": store.num_sequences,
        "tokens": int(store.lengths.sum()),
        "target_tokens": int(store.targets.sum()),
        "shortened": shortened,
        "cut_tokens": cut_tokens,
        **rejected,
        **licences,
    }


def _jobs(
    config: EncodingConfig, file: Path, out_dir: Path, runtime: Runtime, range_bytes: int
) -> tuple[list[RangeJob], str]:
    """A job for every range, and the chat template's source."""
    tokenizer = tokenizer_path(config.tokenizer, runtime)
    chat_format = load_format(tokenizer, config.template)  # a tokenizer that cannot be used is refused before all
    if chat_format.template.replaces_own:
        log.warning(
            "encoding.template %s is used although the tokenizer has a chat template of its own; leave it out if the "
            "model was trained with that",
            config.template,
        )
    ranges = plan_ranges(file, range_bytes=range_bytes)
    jobs = [
        RangeJob(
            number=number,
            conversations=file.absolute(),
            row_groups=row_groups,
            config=config,
            tokenizer=tokenizer.absolute(),
            vocabulary=chat_format.vocabulary,
            out_dir=out_dir.absolute(),
            num_processes=min(runtime.workers, len(ranges)),
        )
        for number, row_groups in enumerate(ranges)
    ]
    return jobs, chat_format.template.source


def _engine(runtime: Runtime, jobs: Sequence[RangeJob]) -> Engine:
    """In this process where one is enough: another takes seconds to start."""
    is_alone = len(jobs) <= 1 or (runtime.engine == "local" and runtime.workers == 1)
    return InProcess() if is_alone else current_engine(runtime)


def _encode_all(jobs: Sequence[RangeJob], engine: Engine, file: Path) -> Iterator[Shard | None]:
    metadata = pq.read_metadata(file)
    sizes = [sum(metadata.row_group(group).num_rows for group in job.row_groups) for job in jobs]
    with track("encode", total=metadata.num_rows, unit="conversations") as step:
        shown = 0

        def look() -> None:
            nonlocal shown
            done = sum(size for job, size in zip(jobs, sizes, strict=True) if job.done.is_file())
            step(done - shown)
            shown = done

        yield from engine.run(encode_range, jobs, label="encode", look=look)


def _write_sequences(jobs: Sequence[RangeJob], path: Path) -> tuple[int, int]:
    """Put the ranges' rows together, numbered through; returns how many were shortened, and tokens they lost."""
    shortened = cut_tokens = first = 0
    unfinished = path.with_name(f"{path.name}.part")
    schema = record_schema(SequenceRow)
    with pq.ParquetWriter(unfinished, schema, compression="zstd") as writer:
        for job in jobs:
            of_range = pq.ParquetFile(job.sequences, pre_buffer=False)
            for batch in of_range.iter_batches(batch_size=SHORT_BATCH):
                numbers = pc.add(batch["sequence"], first)
                cuts = batch["cut_tokens"]
                shortened += pc.sum(pc.greater(cuts, 0)).as_py()
                cut_tokens += pc.sum(cuts).as_py()
                others = [batch[name] for name in schema.names if name != "sequence"]
                writer.write_batch(pa.record_batch([numbers, *others], schema))
            first += of_range.metadata.num_rows
    unfinished.replace(path)
    return shortened, cut_tokens
