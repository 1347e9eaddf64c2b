"""Names for clusters out of a few labelled pictures: an assignment, and what is left over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unim2_core.evaluation.metrics import UNASSIGNED, Integers, matched
from unim2_core.showing.naming.labelling import Hint


def name_hints(table: Integers, classes: Sequence[str], clusters: int) -> dict[int, Hint]:
    """Hungarian assignment of clusters to classes; the others get the class of most pixels.

    Args:
        table: (K or more, C) how often each cluster meets each class.
        classes: names of the C classes.
        clusters: K.

    Returns:
        Cluster -> hint; those that meet no label are left out.
    """
    own = matched(table)
    found = {}
    for cluster, (row, given) in enumerate(zip(table[:clusters], own.tolist(), strict=False)):
        if not row.sum():
            continue
        assigned = given != UNASSIGNED and row[given] > 0
        choice = given if assigned else int(np.argmax(row))
        found[cluster] = Hint(classes[choice], float(row[choice] / row.sum()), assigned)
    return found
