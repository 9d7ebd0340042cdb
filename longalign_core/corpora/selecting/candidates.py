"""The documents that may be drawn, by language group, length range and corpus, in the order of the draw."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from heapq import nsmallest

from longalign_core.config.selection import SelectionConfig
from longalign_core.corpora.selecting.lengths import DocumentLength

CHINESE, OTHER, ALL = "chinese", "other", "all"

Candidate = tuple[bytes, str, int, str]
"""Priority, id, tokens, corpus."""


class Pool:
    """The documents that may be drawn. Memory holds, of each cell, about twice as many as can be drawn from it.

    Attributes:
        eligible: By language group and length range: corpus -> documents.
    """

    def __init__(self, config: SelectionConfig) -> None:
        self.eligible: defaultdict[tuple[str, int], Counter[str]] = defaultdict(Counter)
        self._config = config
        self._cells: defaultdict[tuple[str, int, str], list[Candidate]] = defaultdict(list)

    def add(self, length: DocumentLength) -> None:
        """Take a document in, unless it cannot be drawn."""
        config = self._config
        if length.num_tokens is None or why_not_eligible(length, config):
            return
        group, bucket = group_of(length.language, config), bucket_of(length.num_tokens, config)
        self.eligible[group, bucket][length.source] += 1
        cell = self._cells[group, bucket, length.source if config.corpus_shares is not None else ALL]
        cell.append((priority(config.seed, length.id), length.id, length.num_tokens, length.source))
        if len(cell) >= 2 * config.num_documents + 1_000:
            cell[:] = nsmallest(config.num_documents, cell)

    def size(self, group: str, bucket: int) -> int:
        """Documents that may be drawn from a cell."""
        return self.eligible[group, bucket].total()

    def take(self, group: str, bucket: int, quota: int | Mapping[str, int]) -> list[Candidate]:
        """The first ones of a cell: in all, or of each corpus."""
        quotas = {ALL: quota} if isinstance(quota, int) else quota
        return [one for name, num in quotas.items() for one in nsmallest(num, self._cells[group, bucket, name])]


def priority(seed: int, document_id: str) -> bytes:
    """Place of a document in every draw; the smallest are taken. Of the seed and the id alone."""
    return hashlib.sha256(f"{seed}\n{document_id}".encode()).digest()


def bucket_of(num_tokens: int, config: SelectionConfig) -> int:
    """Which of the equal length ranges a length lies in, from 0. The length is within the range."""
    assert config.min_tokens <= num_tokens <= config.max_tokens, "only lengths within the range have a bucket"
    return (num_tokens - config.min_tokens) * config.num_buckets // (config.max_tokens + 1 - config.min_tokens)


def why_not_eligible(length: DocumentLength, config: SelectionConfig) -> str | None:
    """Why a document cannot be drawn; None when it can."""
    if length.num_tokens is None or length.num_tokens < config.min_tokens:
        return "too short"
    if length.num_tokens > config.max_tokens:
        return "too long"
    if config.corpus_shares is not None and length.source not in config.corpus_shares:
        return "corpus has no share"
    return None


def group_of(language: str, config: SelectionConfig) -> str:
    """Language group of a document."""
    if config.chinese_share is None:
        return ALL
    return CHINESE if language == "zh" else OTHER


def bucket_range(bucket: int, config: SelectionConfig) -> tuple[int, int]:
    """Shortest and longest length of a range."""
    width = config.max_tokens + 1 - config.min_tokens
    edges = [config.min_tokens - (-width * index // config.num_buckets) for index in (bucket, bucket + 1)]
    return edges[0], edges[1] - 1
