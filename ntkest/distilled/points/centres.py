"""Clusters of few examples by their kernel, and which member is nearest to the centre of each.

The centres of k-means are the atoms of the free-support Wasserstein barycentre of one measure: those k points, with
weights as free as they are, whose measure is nearest in W₂ to that of all points. Each point then goes to the nearest
atom, each atom is the mean of what goes to it, and its weight is the share of that; Lloyd's iteration is the
alternation of transport and positions that barycentres of several measures need.

References: Cuturi and Doucet, "Fast computation of Wasserstein barycenters", ICML 2014, where k-means is the case of
one measure; Lloyd, "Least squares quantization in PCM", 1982; Arthur and Vassilvitskii, "k-means++", SODA 2007.
"""

from __future__ import annotations

import warnings

import numpy as np

ROUNDS = 50
"""Of Lloyd's iteration."""


TIE = 1e-5
"""Relative difference of squared distances that counts as none: both members of a pair are as near to its centre."""


def clusters(K: np.ndarray, count: int, draw: np.random.Generator) -> np.ndarray:
    """For each of n examples with kernel K (n, n) the number of its cluster by k-means; none of them is empty."""
    from scipy.cluster.vq import kmeans2, vq

    values, vectors = np.linalg.eigh(K)
    points = vectors * np.sqrt(np.maximum(values, 0))  # (n, n), with K as their inner products
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a cluster that lost its points, or k-means++ that ran out of distinct ones
        centres, _ = kmeans2(points, count, iter=ROUNDS, minit="++", seed=draw)
    owner, distance = vq(points, np.nan_to_num(centres))
    for empty in np.setdiff1d(np.arange(count), owner):
        crowded = np.bincount(owner, minlength=count)[owner] > 1
        lonely = int(np.where(crowded, distance, -1).argmax())
        owner[lonely], distance[lonely] = empty, 0
    return np.asarray(owner)


def nearest_members(K: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """The member of each cluster that is nearest to its centre, the first of them if there are several."""
    found = []
    for cluster in range(owner.max() + 1):
        members = np.flatnonzero(owner == cluster)
        inside = K[np.ix_(members, members)]
        gaps = np.diagonal(inside) - 2 * inside.mean(axis=1)
        tied = gaps <= gaps.min() + TIE * np.abs(inside).max()
        found.append(members[tied.argmax()])
    return np.array(found)


def shares(owner: np.ndarray) -> np.ndarray:
    """The rows (clusters, n) that average over the members of each."""
    inside = (np.arange(owner.max() + 1)[:, None] == owner).astype(np.float64)
    return np.asarray(inside / inside.sum(axis=1, keepdims=True))
