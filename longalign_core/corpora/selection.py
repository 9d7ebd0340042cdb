"""The draw: which documents become instruction data, evenly over lengths."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from longalign_core.config.selection import SelectionConfig
from longalign_core.corpora.lengths import DocumentLength
from longalign_core.records import Reject

CHINESE, OTHER, ALL = "chinese", "other", "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One length range of one language group.

    Attributes:
        group: "chinese" and "other" where the recipe asks for a share, else "all".
        min_tokens: Shortest length in the range.
        max_tokens: Longest length in the range.
        eligible: Documents there are.
        wanted: Documents asked for, before what others lack was shared out.
        drawn: Documents drawn.
        by_source: Corpus -> documents drawn.
    """

    group: str
    min_tokens: int
    max_tokens: int
    eligible: int
    wanted: int
    drawn: int
    by_source: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What was drawn.

    Attributes:
        num_tokens: Length of each drawn document, by id.
        cells: By language group, then length.
        num_wanted: Documents asked for.
        eligible_by_source: Corpus -> documents within the range.
    """

    num_tokens: Mapping[str, int]
    cells: tuple[Cell, ...]
    num_wanted: int
    eligible_by_source: Mapping[str, int]

    @property
    def num_missing(self) -> int:
        """Documents asked for that there are not."""
        return self.num_wanted - len(self.num_tokens)

    def table(self) -> list[dict[str, object]]:
        """The cells as plain rows, for reports."""
        return [asdict(cell) for cell in self.cells]


def priority(seed: int, document_id: str) -> bytes:
    """Place of a document in every draw; the smallest are taken. Of the seed and the id alone."""
    return hashlib.sha256(f"{seed}\n{document_id}".encode()).digest()


def bucket_of(num_tokens: int, config: SelectionConfig) -> int:
    """Which of the equal length ranges a length lies in, from 0. The length is within the range."""
    assert config.min_tokens <= num_tokens <= config.max_tokens, "only lengths within the range have a bucket"
    return (num_tokens - config.min_tokens) * config.num_buckets // (config.max_tokens + 1 - config.min_tokens)


def even_quotas(available: Sequence[int], wanted: int) -> list[int]:
    """Share out a number as evenly as what is available allows; what does not divide goes to the last.

    Args:
        available: How many there are, per bucket.
        wanted: How many are wanted in all.

    Returns:
        Per bucket, at most what is available. They sum to `wanted`, or to all there is.
    """
    wanted = min(wanted, sum(available))
    low, high = 0, max(available, default=0)
    while low < high:
        level = (low + high + 1) // 2
        if sum(min(one, level) for one in available) <= wanted:
            low = level
        else:
            high = level - 1
    quotas = [min(one, low) for one in available]
    for index in reversed(range(len(quotas))):
        if sum(quotas) == wanted:
            break
        quotas[index] += available[index] > quotas[index]
    return quotas


def draw(lengths: Iterable[DocumentLength], config: SelectionConfig) -> Selection:
    """Draw documents within the length range, evenly over the buckets of each language group.

    A bucket that has too few gives its places to the others; so does a language group, unless the
    recipe wants none of the other. With too few documents in all, every one is taken. The outcome
    depends on the seed and the documents alone. Memory holds the documents within the range.
    """
    cells: defaultdict[tuple[str, int], list[tuple[bytes, str, int, str]]] = defaultdict(list)
    eligible: Counter[str] = Counter()
    for length in lengths:
        if length.num_tokens is None or why_out_of_range(length, config):
            continue
        key = (_group_of(length.language, config), bucket_of(length.num_tokens, config))
        cells[key].append((priority(config.seed, length.id), length.id, length.num_tokens, length.source))
        eligible[length.source] += 1
    targets = _group_targets(config)
    sizes = {group: [len(cells[group, b]) for b in range(config.num_buckets)] for group in targets}
    totals = _share_between_groups({group: sum(row) for group, row in sizes.items()}, targets)
    drawn: dict[str, int] = {}
    table = []
    for group, target in targets.items():
        asked = even_quotas([target] * config.num_buckets, target)
        for bucket, quota in enumerate(even_quotas(sizes[group], totals[group])):
            taken = sorted(cells[group, bucket])[:quota]
            drawn.update((document_id, num_tokens) for _, document_id, num_tokens, _ in taken)
            lowest, highest = _bucket_range(bucket, config)
            table.append(
                Cell(
                    group=group,
                    min_tokens=lowest,
                    max_tokens=highest,
                    eligible=sizes[group][bucket],
                    wanted=asked[bucket],
                    drawn=quota,
                    by_source=dict(sorted(Counter(source for *_, source in taken).items())),
                )
            )
    return Selection(
        num_tokens=drawn,
        cells=tuple(table),
        num_wanted=config.num_documents,
        eligible_by_source=dict(sorted(eligible.items())),
    )


def rejects_of(lengths: Iterable[DocumentLength], selection: Selection, config: SelectionConfig) -> Iterator[Reject]:
    """Every document that was not drawn, with the reason."""
    for length in lengths:
        if length.id in selection.num_tokens:
            continue
        reason = why_out_of_range(length, config) or "not drawn"
        counted = f"{length.num_tokens} tokens" if length.num_tokens is not None else f"{length.num_bytes} bytes"
        yield Reject(id=length.id, source=length.source, stage="select", reason=reason, detail=counted)


def why_out_of_range(length: DocumentLength, config: SelectionConfig) -> str | None:
    """Why a length cannot be drawn; None when it can."""
    if length.num_tokens is None or length.num_tokens < config.min_tokens:
        return "too short"
    return "too long" if length.num_tokens > config.max_tokens else None


def _group_of(language: str, config: SelectionConfig) -> str:
    if config.chinese_share is None:
        return ALL
    return CHINESE if language == "zh" else OTHER


def _group_targets(config: SelectionConfig) -> dict[str, int]:
    if config.chinese_share is None:
        return {ALL: config.num_documents}
    num_chinese = round(config.num_documents * config.chinese_share)
    return {CHINESE: num_chinese, OTHER: config.num_documents - num_chinese}


def _share_between_groups(available: Mapping[str, int], targets: Mapping[str, int]) -> dict[str, int]:
    totals = {group: min(target, available[group]) for group, target in targets.items()}
    missing = sum(targets.values()) - sum(totals.values())
    for group, target in targets.items():
        extra = min(missing, available[group] - totals[group]) if target else 0
        totals[group] += extra
        missing -= extra
    return totals


def _bucket_range(bucket: int, config: SelectionConfig) -> tuple[int, int]:
    width = config.max_tokens + 1 - config.min_tokens
    edges = [config.min_tokens - (-width * index // config.num_buckets) for index in (bucket, bucket + 1)]
    return edges[0], edges[1] - 1
