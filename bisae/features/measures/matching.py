"""One-to-one matches of directions."""

import numpy as np
from jaxtyping import Float, Int64
from scipy.optimize import linear_sum_assignment


def one_to_one(cosine: Float[np.ndarray, "one other"], least: float) -> Int64[np.ndarray, " one"]:
    """For each row of `cosine` its column, -1 without one: the pairs of at least `least` with the largest sum.

    No column is given twice (Hungarian algorithm).
    """
    kept = np.where(cosine >= least, cosine, 0)
    rows, columns = linear_sum_assignment(kept, maximize=True)
    found = np.full(len(cosine), -1, np.int64)
    found[rows] = np.where(kept[rows, columns] > 0, columns, -1)
    return found
