from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from longalign_core.corpora.selecting.quotas import corpus_quotas, even_quotas, share_targets


@given(st.lists(st.integers(0, 12), max_size=8), st.integers(0, 60))
def test_even_quotas_any_shortfall_equals_dealing_one_by_one(available, wanted):
    dealt = [0] * len(available)
    while sum(dealt) < wanted and dealt != available:
        open_ones = [index for index in range(len(available)) if dealt[index] < available[index]]
        # One round gives every open bucket one more; a last round that does not reach all serves the longest.
        for index in open_ones[-(wanted - sum(dealt)) :]:
            dealt[index] += 1
    assert even_quotas(available, wanted) == dealt


@given(st.lists(st.integers(1, 50), min_size=1, max_size=9), st.integers(0, 200))
def test_share_targets_sum_up_and_are_within_one_document(parts, total):
    shares = {f"c{place}": part / sum(parts) for place, part in enumerate(parts)}
    targets = share_targets(shares, total)
    assert sum(targets.values()) == total
    assert all(abs(targets[name] - share * total) < 1 for name, share in shares.items())


def ways_to_fill(total: int, available: list[int]) -> list[list[int]]:
    if not available:
        return [[]] if total == 0 else []
    first, *others = available
    return [[n, *rest] for n in range(min(total, first) + 1) for rest in ways_to_fill(total - n, others)]


def distances(rows, targets) -> tuple[int, int]:
    sums = [sum(column) for column in zip(*rows, strict=True)]
    return (
        sum((one - target) ** 2 for one, target in zip(sums, targets, strict=True)),
        sum(cell**2 for row in rows for cell in row),
    )


@st.composite
def transports(draw):
    num_columns = draw(st.integers(1, 3))
    row = st.lists(st.integers(0, 4), min_size=num_columns, max_size=num_columns)
    available = draw(st.lists(row, min_size=1, max_size=3))
    totals = [draw(st.integers(0, min(5, sum(one)))) for one in available]
    targets = draw(st.lists(st.integers(0, 7), min_size=num_columns, max_size=num_columns))
    return totals, available, targets


@settings(deadline=None)
@given(transports())
def test_corpus_quotas_are_as_good_as_the_best_of_all_ways(problem):
    totals, available, targets = problem
    rows = corpus_quotas(totals, available, targets)
    assert [sum(row) for row in rows] == totals
    assert all(0 <= cell <= room for row, has in zip(rows, available, strict=True) for cell, room in zip(row, has))  # noqa: B905
    choices = [ways_to_fill(total, has) for total, has in zip(totals, available, strict=True)]
    assert distances(rows, targets) == min(distances(ways, targets) for ways in product(*choices))


def test_corpus_quotas_scarce_lengths_are_left_to_the_corpus_that_has_no_others():
    # The second corpus has long texts only: the first gives up its long ones, and both reach 10.
    assert corpus_quotas([10, 10], [[50, 0], [50, 50]], [10, 10]) == [[10, 0], [0, 10]]


def test_corpus_quotas_what_one_lacks_is_spread_evenly_over_the_others():
    rows = corpus_quotas([30], [[3, 100, 100]], [10, 10, 10])
    assert rows[0][0] == 3 and sorted(rows[0][1:]) == [13, 14]


def test_corpus_quotas_recipe_sized_reach_exact_shares():
    totals = [143, 143, 143, 143, 143, 143, 142] + [1286] * 6 + [1284]
    available = [[3_000 // (1 + (row * corpus) % 7) for corpus in range(9)] for row in range(14)]
    targets = [1111] * 8 + [1112]
    rows = corpus_quotas(totals, available, targets)
    assert [sum(row) for row in rows] == totals
    assert [sum(column) for column in zip(*rows, strict=True)] == targets
