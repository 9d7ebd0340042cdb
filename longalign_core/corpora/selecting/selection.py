"""The draw: which documents become instruction data, evenly over lengths, corpora at their shares.

Where wishes cannot all be met, the number of documents comes first, then languages, then evenness
over lengths, then corpora.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from longalign_core.config.selection import SelectionConfig
from longalign_core.corpora.selecting.candidates import ALL, CHINESE, OTHER, Pool, bucket_range, why_not_eligible
from longalign_core.corpora.selecting.lengths import DocumentLength
from longalign_core.corpora.selecting.quotas import corpus_quotas, even_quotas, share_targets
from longalign_core.records import Reject


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusCell:
    """What one corpus has and gives: in one cell, or in all.

    Attributes:
        eligible: Documents there are.
        wanted: Documents asked for; None where the recipe takes corpora as they come.
        drawn: Documents drawn.
    """

    eligible: int
    wanted: int | None
    drawn: int


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
        by_source: By corpus, in name order; those that have, are asked for, or gave any.
    """

    group: str
    min_tokens: int
    max_tokens: int
    eligible: int
    wanted: int
    drawn: int
    by_source: dict[str, CorpusCell]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What was drawn.

    Attributes:
        num_tokens: Length of each drawn document, by id.
        cells: By language group, then length.
        num_wanted: Documents asked for.
        by_source: By corpus, over all cells.
    """

    num_tokens: Mapping[str, int]
    cells: tuple[Cell, ...]
    num_wanted: int
    by_source: Mapping[str, CorpusCell]

    @property
    def num_missing(self) -> int:
        """Documents asked for that there are not."""
        return self.num_wanted - len(self.num_tokens)

    @property
    def num_eligible(self) -> int:
        """Documents that could have been drawn."""
        return sum(cell.eligible for cell in self.cells)

    def table(self) -> list[dict[str, Any]]:
        """The cells as plain rows, for reports."""
        return [asdict(cell) for cell in self.cells]


def draw(lengths: Iterable[DocumentLength], config: SelectionConfig) -> Selection:
    """Draw documents within the length range, evenly over the buckets of each language group.

    A bucket that has too few gives its places to the others; so does a language group, unless the
    recipe wants none of the other. With too few documents in all, every one is taken. Where the
    recipe gives corpora shares, each bucket's places are filled so that the corpora come as near to
    them as can be. The outcome depends on the seed and the documents alone. Memory holds at most
    twice the documents asked for, per cell.
    """
    targets = _group_targets(config)
    pool = Pool(config)
    for length in lengths:
        pool.add(length)
    sizes = {group: [pool.size(group, bucket) for bucket in range(config.num_buckets)] for group in targets}
    totals = _share_between_groups({group: sum(row) for group, row in sizes.items()}, targets)
    places = [(group, bucket) for group in targets for bucket in range(config.num_buckets)]
    asked = [quota for target in targets.values() for quota in even_quotas([target] * config.num_buckets, target)]
    quotas = [quota for group in targets for quota in even_quotas(sizes[group], totals[group])]
    shares = None
    wants: list[dict[str, int]] = [{} for _ in places]
    takes: Sequence[int | dict[str, int]] = quotas
    if config.corpus_shares is not None:
        shares = dict(sorted(share_targets(config.corpus_shares, config.num_documents).items()))
        wants, takes = _quotas_by_source(pool, places, asked, quotas, shares)
    drawn: dict[str, int] = {}
    table = []
    for (group, bucket), num_asked, want, take in zip(places, asked, wants, takes, strict=True):
        taken = pool.take(group, bucket, take)
        drawn.update((document_id, num_tokens) for _, document_id, num_tokens, _ in taken)
        gave = Counter(source for *_, source in taken)
        has = pool.eligible[group, bucket]
        lowest, highest = bucket_range(bucket, config)
        by_source = {
            name: CorpusCell(eligible=has[name], wanted=want.get(name, 0) if shares else None, drawn=gave[name])
            for name in sorted({*has, *(name for name, number in want.items() if number)})
        }
        table.append(
            Cell(
                group=group,
                min_tokens=lowest,
                max_tokens=highest,
                eligible=pool.size(group, bucket),
                wanted=num_asked,
                drawn=len(taken),
                by_source=by_source,
            )
        )
    return Selection(
        num_tokens=drawn, cells=tuple(table), num_wanted=config.num_documents, by_source=_by_source(table, shares)
    )


def rejects_of(lengths: Iterable[DocumentLength], selection: Selection, config: SelectionConfig) -> Iterator[Reject]:
    """Every document that was not drawn, with the reason."""
    for length in lengths:
        if length.id in selection.num_tokens:
            continue
        reason = why_not_eligible(length, config) or "not drawn"
        counted = f"{length.num_tokens} tokens" if length.num_tokens is not None else f"{length.num_bytes} bytes"
        yield Reject(id=length.id, source=length.source, stage="select", reason=reason, detail=counted)


def _quotas_by_source(
    pool: Pool, places: Sequence[tuple[str, int]], asked: Sequence[int], quotas: Sequence[int], shares: dict[str, int]
) -> tuple[list[dict[str, int]], list[dict[str, int]]]:
    """What is wanted of each corpus at each place, and what is drawn.

    Wanted is what would be drawn if every corpus had enough of all lengths in the languages it has.
    """
    names, targets = list(shares), list(shares.values())
    has: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for group, bucket in places:
        has[group] += pool.eligible[group, bucket]
    absent = {name for name in names if not any(row[name] for row in has.values())}
    enough = [
        [sum(targets) if has[group][name] or name in absent or not has[group] else 0 for name in names]
        for group, _ in places
    ]
    available = [[pool.eligible[place][name] for name in names] for place in places]
    wanted, drawn = corpus_quotas(asked, enough, targets), corpus_quotas(quotas, available, targets)
    return [dict(zip(names, row, strict=True)) for row in wanted], [dict(zip(names, row, strict=True)) for row in drawn]


def _by_source(cells: Sequence[Cell], shares: Mapping[str, int] | None) -> dict[str, CorpusCell]:
    eligible: Counter[str] = Counter()
    drawn: Counter[str] = Counter()
    for cell in cells:
        for name, one in cell.by_source.items():
            eligible[name] += one.eligible
            drawn[name] += one.drawn
    return {
        name: CorpusCell(eligible=eligible[name], wanted=None if shares is None else shares[name], drawn=drawn[name])
        for name in sorted({*eligible, *(shares or ())})
    }


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
