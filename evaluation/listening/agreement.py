"""Krippendorff's alpha: how far listeners agree beyond chance (Krippendorff 2011, Computing Krippendorff's Alpha).

Written from the paper, because the package of that name is under the GPL.
"""

from typing import Literal

import numpy as np


def krippendorff_alpha(ratings_LI: np.ndarray, level: Literal["nominal", "ordinal", "interval"] = "ordinal") -> float:
    """Alpha of ratings [listeners, items], nan where one is missing; 1 is perfect agreement, 0 chance.

    Returns nan where no item has two ratings, or all ratings are the same: then agreement by chance is undefined.
    """
    values = np.unique(ratings_LI[~np.isnan(ratings_LI)])
    # counts[i, v]: how many listeners gave item i the value v; items with one rating pair with nothing.
    counts_IV = np.stack([(ratings_LI == value).sum(axis=0) for value in values], axis=1) if len(values) else None
    if counts_IV is None:
        return float("nan")
    counts_IV = counts_IV[counts_IV.sum(axis=1) >= 2].astype(float)
    if not len(counts_IV):
        return float("nan")
    raters_I = counts_IV.sum(axis=1)
    pairs_IVV = counts_IV[:, :, None] * counts_IV[:, None, :]
    diagonal = np.arange(len(values))
    pairs_IVV[:, diagonal, diagonal] -= counts_IV
    coincidences_VV = (pairs_IVV / (raters_I - 1)[:, None, None]).sum(axis=0)
    totals_V = coincidences_VV.sum(axis=1)
    total = totals_V.sum()
    distance_VV = _distances(values, totals_V, level)
    observed = (coincidences_VV * distance_VV).sum()
    expected = (np.outer(totals_V, totals_V) * distance_VV).sum() / (total - 1)
    return float(1 - observed / expected) if expected > 0 else float("nan")


def _distances(values: np.ndarray, totals_V: np.ndarray, level: str) -> np.ndarray:
    """Squared distances between values [V,V]."""
    if level == "nominal":
        return 1.0 - np.eye(len(values))
    if level == "interval":
        return np.asarray(np.square(values[:, None] - values[None, :]))
    # Ordinal: how many ratings lie between two values, their own halved.
    below_V = np.concatenate([[0.0], np.cumsum(totals_V)])
    middle_V = below_V[:-1] + totals_V / 2
    return np.asarray(np.square(middle_V[:, None] - middle_V[None, :]))
