"""Splits of frames that were recorded in sequences.

Neighbouring frames are nearly equal, so a split of single rows would test on what it trained on.
Whole sequences become training, validation or test.
"""

from collections.abc import Sequence

import numpy as np

from sheafnet.datasets.base import Labels, Split
from sheafnet.datasets.epochs import Rows, stratified
from sheafnet.errors import DatasetError
from sheafnet.seeds import derive

SHARES: dict[Split, float] = {"train": 0.7, "validation": 0.1, "test": 0.2}
BLOCKS = 20
"""Stretches of rows that stand in for sequences where none are named."""
TRIES = 200
"""Orders of the sequences that are tried for one that brings every class into every split."""


def numbered(names: Sequence[str] | None, rows: int) -> Rows:
    """The number of every row's sequence, from 0; without names they are `BLOCKS` equal blocks."""
    if names is None:
        return np.arange(rows, dtype=np.int64) * min(BLOCKS, rows) // rows
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def split_sequences(
    sequence: Rows, labels: Labels, classes: Sequence[str], seed: int
) -> dict[Split, Rows]:
    """About 70 / 10 / 20 percent of the rows in whole sequences, every class in each split.

    Args:
        sequence: the number of every row's sequence, from 0 without gaps.
        labels: the class of every row, from 0.
        classes: what each class is called.
        seed: of the order in which sequences are dealt out.

    Raises:
        DatasetError: no way to split was found that brings every class into every split.
    """
    lengths = np.bincount(sequence)
    has = np.zeros((len(lengths), len(classes)), np.bool_)
    has[sequence, labels] = True
    best, most = np.zeros_like(lengths), -1
    for attempt in range(TRIES):
        chosen = _dealt(lengths, seed, attempt)
        covered = sum(int(has[chosen == k].any(axis=0).sum()) for k in range(len(SHARES)))
        if covered > most:
            best, most = chosen, covered
        if most == len(SHARES) * len(classes):
            break
    for k, split in enumerate(SHARES):
        lacking = np.flatnonzero(~has[best == k].any(axis=0))
        if len(lacking):
            count, holders = (labels == lacking[0]).sum(), has[:, lacking[0]].sum()
            raise DatasetError(
                f"{classes[lacking[0]]}: its {count} rows lie in {holders} of {len(lengths)} "
                f"sequences, and {split} has none of them in the best of {TRIES} ways to split"
            )
    rows = {split: np.flatnonzero(best[sequence] == k) for k, split in enumerate(SHARES)}
    return {
        split: part[stratified(labels[part], "sequences", split)] for split, part in rows.items()
    }


def _dealt(lengths: Rows, seed: int, attempt: int) -> Rows:
    """For each sequence the number of its split, so that rows come close to `SHARES`.

    In a random order each goes to the split that is furthest below its share. Raw Philox output,
    since numpy promises to keep that.
    """
    random = np.random.Philox(key=derive(0, "sequences", seed, attempt)).random_raw(len(lengths))
    shares = np.array(list(SHARES.values()))
    filled = np.zeros(len(shares))
    chosen = np.empty(len(lengths), np.int64)
    for number in np.argsort(random, kind="stable"):
        chosen[number] = np.argmin(filled / shares)
        filled[chosen[number]] += lengths[number]
    return chosen
