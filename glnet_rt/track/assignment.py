"""Who is who at the least total cost, exactly."""

from __future__ import annotations

import numpy as np

from glnet_rt.contracts import Array

_NEVER = 1e6  # far above any sum of allowed costs


def assign(cost: Array, limit: float) -> list[tuple[int, int]]:
    """The pairs of rows and columns that can be made at most in number, and then at least in cost.

    The Hungarian method by shortest augmenting paths (Jonker and Volgenant, 1987), O(n² m). Ties
    go to the lower column, so that the same costs always give the same pairs.

    Args:
        cost: [N, M], finite, at least 0.
        limit: pairs that cost this much or more are not made.

    Returns:
        (row, column) pairs, by row.
    """
    if cost.size == 0:
        return []
    if cost.shape[0] > cost.shape[1]:
        return sorted((row, column) for column, row in assign(cost.T, limit))
    allowed = cost < limit
    column_of = _shortest_paths(np.where(allowed, cost, _NEVER))
    return [(row, column) for row, column in enumerate(column_of) if allowed[row, column]]


def _shortest_paths(cost: Array) -> list[int]:
    """The column of each row of [N, M], N <= M, at the least sum; every row has one."""
    rows, columns = cost.shape
    row_price, column_price = np.zeros(rows), np.zeros(columns)
    row_of = np.full(columns, -1)
    for start in range(rows):
        distance = np.full(columns, np.inf)
        before = np.full(columns, -1)  # the column through which each was reached
        done = np.zeros(columns, bool)
        row, last, reached = start, -1, 0.0
        while True:
            through = reached + cost[row] - row_price[row] - column_price
            shorter = ~done & (through < distance)
            distance[shorter], before[shorter] = through[shorter], last
            last = int(np.argmin(np.where(done, np.inf, distance)))
            reached = float(distance[last])
            done[last] = True
            if row_of[last] < 0:
                break
            row = int(row_of[last])
        row_price[start] += reached
        for column in np.flatnonzero(done):
            if row_of[column] >= 0:
                row_price[row_of[column]] += reached - distance[column]
            column_price[column] -= reached - distance[column]
        while last >= 0:  # turn the path around
            previous = int(before[last])
            row_of[last] = row_of[previous] if previous >= 0 else start
            last = previous
    column_of = {owner: place for place, owner in enumerate(row_of.tolist()) if owner >= 0}
    return [column_of[owner] for owner in range(rows)]
