"""How many documents each place of the draw gets: evenly over lengths, then corpora at their shares.

The second is a transport problem: rows (a length range of one language) whose totals are settled,
columns (corpora) that have targets, and cells that hold only so many documents. It is solved exactly,
by cancelling negative cycles (Klein 1967) with capacity scaling; all arithmetic is on integers, so
the outcome is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

_NEVER = np.int64(1) << np.int64(60)


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


def share_targets(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole documents for shares that sum to 1, by largest remainder; of equal ones the first name gets it."""
    exact = {name: share * total for name, share in shares.items()}
    targets = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(shares, key=lambda name: (targets[name] - exact[name], name))
    for name in by_remainder[: total - sum(targets.values())]:
        targets[name] += 1
    return targets


def corpus_quotas(totals: Sequence[int], available: Sequence[Sequence[int]], targets: Sequence[int]) -> list[list[int]]:
    """Fill every row to its total with the columns as close to their targets as can be.

    Among all ways to fill the rows, one with the smallest sum of squared distances of the columns
    from their targets is taken, so that what one corpus lacks is spread evenly over the others; among
    those, one with the smallest sum of squared cells, so that each corpus is spread over the lengths.

    Args:
        totals: Documents per row, R of them; none above the sum of what its row has.
        available: Documents that each cell has, R × C.
        targets: Documents wanted of each column, C of them.

    Returns:
        Documents per cell, R × C; rows sum to their totals.
    """
    assert all(total <= sum(row) for total, row in zip(totals, available, strict=True)), "a row cannot be filled"
    cells = np.array([even_quotas(row, total) for row, total in zip(available, totals, strict=True)], dtype=np.int64)
    room = np.array(available, dtype=np.int64)
    if not cells.size:
        return [[] for _ in totals]
    step = 1 << max(int(cells.max()).bit_length() - 1, 0)
    while step:
        while (cycle := _negative_cycle(cells, room, np.array(targets, dtype=np.int64), step)) is not None:
            for (row, column), sign in cycle:
                cells[row, column] += sign * step
        step //= 2
    rows: list[list[int]] = cells.tolist()
    return rows


def _negative_cycle(
    cells: NDArray[np.int64], room: NDArray[np.int64], targets: NDArray[np.int64], step: int
) -> list[tuple[tuple[int, int], int]] | None:
    """Cells to raise (1) and to lower (-1) by `step` so that the whole gets better; None when nothing helps.

    Nodes are rows, then columns, then a hub to which a column's surplus flows. Costs are those of
    moving `step` documents, per document. Found by Bellman-Ford from all nodes at once.
    """
    num_rows, num_columns = cells.shape
    hub, num_nodes = num_rows + num_columns, num_rows + num_columns + 1
    sums = cells.sum(axis=0)
    # A cycle visits a node once, so its cells can never outweigh one document of a column.
    weight = 2 * num_nodes * (2 * int(sums.sum()) + step + 1)
    cost = np.full((num_nodes, num_nodes), _NEVER)
    cost[:num_rows, num_rows:hub] = np.where(cells + step <= room, 2 * cells + step, _NEVER)
    cost[num_rows:hub, :num_rows] = np.where(cells >= step, step - 2 * cells, _NEVER).T
    cost[num_rows:hub, hub] = weight * (2 * (sums - targets) + step)
    cost[hub, num_rows:hub] = np.where(sums >= step, weight * (step - 2 * (sums - targets)), _NEVER)
    distance = np.zeros(num_nodes, dtype=np.int64)
    before = np.full(num_nodes, -1)
    for _ in range(num_nodes):
        through = distance[:, None] + cost
        best = through.argmin(axis=0)
        nearer = through[best, np.arange(num_nodes)]
        changed = nearer < distance
        if not changed.any():
            return None
        distance = np.where(changed, nearer, distance)
        before = np.where(changed, best, before)
        if (nodes := _cycle_of(before)) is not None:
            return _moves(nodes, num_rows, hub)
    raise AssertionError("a relaxation in the last round means a cycle")


def _cycle_of(before: NDArray[np.int64]) -> list[int] | None:
    """Nodes of a cycle of predecessors, each followed by the one it leads to."""
    seen_from = [-1] * len(before)
    for start in range(len(before)):
        node = start
        while node >= 0 and seen_from[node] < 0:
            seen_from[node] = start
            node = int(before[node])
        if node >= 0 and seen_from[node] == start:
            cycle = [node]
            while (previous := int(before[cycle[-1]])) != node:
                cycle.append(previous)
            return cycle[::-1]
    return None


def _moves(nodes: Sequence[int], num_rows: int, hub: int) -> list[tuple[tuple[int, int], int]]:
    moves = []
    for node, following in zip(nodes, [*nodes[1:], nodes[0]], strict=True):
        if node < num_rows:
            moves.append(((node, following - num_rows), 1))
        elif following < num_rows:
            moves.append(((following, node - num_rows), -1))
    assert hub not in {row for (row, _), _ in moves}, "the hub holds no documents"
    return moves
