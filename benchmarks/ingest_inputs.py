"""Inputs of any size for the ingest benchmark, made of the paragraphs of real samples."""

from __future__ import annotations

import gzip
import json
import math
import os
import random
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

MEDIAN_CHARACTERS, SPREAD = 2_000, 1.0
LONG_SHARE, LONG_CHARACTERS = 0.01, (30_000, 200_000)
"""Length of documents: lognormal as in C4, and some long ones, which this project is about."""
_ROW_GROUP_ROWS = 1_000
_POOL_DOCUMENTS = 3_000


def samples() -> Path:
    """Folder of the real samples: `LONGALIGN_TEST_DATA`, else `../shared/data` beside the checkout."""
    named = os.environ.get("LONGALIGN_TEST_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "corpora").is_dir():
        raise SystemExit(f"{folder} holds no corpora; set LONGALIGN_TEST_DATA to the folder of test data")
    return folder / "corpora"


@cache
def paragraphs() -> tuple[str, ...]:
    """Paragraphs of the C4 sample."""
    (file,) = (samples() / "c4" / "en").glob("*.json.gz")
    with gzip.open(file) as lines:
        return tuple(part for line in lines for part in orjson.loads(line)["text"].split("\n\n") if part.strip())


def documents(seed: int = 0) -> Iterator[dict[str, str]]:
    """Rows as in C4, without end; the same ones each time."""
    chance = random.Random(seed)
    known = paragraphs()
    number = 0
    while True:
        length = chance.lognormvariate(math.log(MEDIAN_CHARACTERS), SPREAD)
        if chance.random() < LONG_SHARE:
            length = chance.uniform(*LONG_CHARACTERS)
        parts, size = [], 0
        while size < length:
            parts.append(chance.choice(known))
            size += len(parts[-1]) + 2
        number += 1
        url = f"https://example.org/{seed}/{number}"
        yield {"text": "\n\n".join(parts)[: max(200, int(length))], "timestamp": "2019-04-25T12:57:54Z", "url": url}


def some_documents(num_bytes: int) -> Iterator[dict[str, str]]:
    """Rows until their texts have so many characters."""
    size = 0
    for row in documents():
        yield row
        size += len(row["text"])
        if size >= num_bytes:
            return


def write_json_lines(path: Path, num_bytes: int) -> Path:
    """JSON lines of so many bytes of text; by the suffix .gz in one stream, as C4 is."""
    with gzip.open(path, "wb", compresslevel=6) if path.suffix == ".gz" else path.open("wb") as file:
        for row in some_documents(num_bytes):
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    return path


def write_json_array(path: Path, num_bytes: int) -> Path:
    """One array of WuDao's rows."""
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(some_documents(num_bytes)):
            wudao = {"id": number, "dataType": "x", "title": row["url"], "content": row["text"]}
            file.write(("," if number else "[") + json.dumps(wudao, ensure_ascii=False))
        file.write("]")
    return path


def write_parquet(path: Path, num_bytes: int) -> Path:
    """Parquet of so many stored bytes with C4's columns, packed as pyarrow does by default."""
    rows = documents()
    with path.open("wb") as target:
        columns = pa.schema([(name, pa.string()) for name in ("text", "timestamp", "url")])
        with pq.ParquetWriter(target, columns) as file:
            while target.tell() < num_bytes:
                file.write_table(pa.Table.from_pylist(list(islice(rows, _ROW_GROUP_ROWS)), columns))
    return path


def write_packed_json_lines(path: Path, num_bytes: int) -> Path:
    """JSON lines in a .gz of so many stored bytes: one stream after another, made once each."""
    pool = list(islice(documents(), _POOL_DOCUMENTS))
    step = 500
    packed = [
        gzip.compress(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in pool[i : i + step]))
        for i in range(0, len(pool), step)
    ]
    return _write_again_and_again(path, packed, num_bytes)


def write_wet(path: Path, num_bytes: int) -> Path:
    """WET of so many stored bytes, each record packed by itself."""
    rows = islice(documents(), _POOL_DOCUMENTS)
    return _write_again_and_again(path, [gzip.compress(_wet_record(row)) for row in rows], num_bytes)


def _wet_record(row: dict[str, str]) -> bytes:
    text = row["text"].encode()
    header = (
        f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: {row['url']}\r\nWARC-Date: {row['timestamp']}\r\n"
        f"Content-Type: text/plain\r\nContent-Length: {len(text)}\r\n\r\n"
    )
    return header.encode() + text + b"\r\n\r\n"


def _write_again_and_again(path: Path, pieces: Iterable[bytes], num_bytes: int) -> Path:
    known = list(pieces)
    size = number = 0
    with path.open("wb") as file:
        while size < num_bytes:
            size += file.write(known[number % len(known)])
            number += 1
    return path
