"""Random matrices by their definition, entry by entry, from nothing but NumPy's Philox."""

import numpy as np
from scipy.special import ndtri

KINDS = ("rademacher", "gaussian", "sjlt")
TABLE = ndtri((np.arange(2**16) + 0.5) / 2**16)
TABLE = (TABLE / np.sqrt((TABLE**2).mean())).astype(np.float32).astype(np.float64)


def words(seed, kind, counter, count):
    """64-bit words from a place of a stream on."""
    generator = np.random.Philox(key=np.array([seed, kind], np.uint64), counter=np.array(counter, np.uint64))
    return [int(word) for word in generator.random_raw(count)]


def matrix(kind, sizes, dim, seed=0):
    """Q/√dim, (P, dim): blocks of parameters one below the other."""
    return np.concatenate([_block(kind, index, size, dim, seed) for index, size in enumerate(sizes)])


def _block(kind, index, size, dim, seed):
    if kind == "sjlt":
        return _sparse(index, size, dim, seed)
    found = np.empty((size, dim))
    for i in range(size):
        for group in range(-(-dim // 64)):
            columns = range(64 * group, min(64 * group + 64, dim))
            if kind == "rademacher":
                word = words(seed, 8, (i // 4, group, index, 0), 4)[i % 4]
                found[i, columns] = [-1.0 if word >> (j % 64) & 1 else 1.0 for j in columns]
            else:
                row = words(seed, 12, (4 * i, group, index, 0), 16)
                found[i, columns] = [TABLE[row[(j % 64) // 4] >> 16 * (j % 4) & 0xFFFF] for j in columns]
    return found / dim**0.5


def _sparse(index, size, dim, seed):
    parts = min(4, dim)
    run, found = dim // parts, np.zeros((size, dim))
    each = 4 * ((run + 1 + 3) // 4)
    for part in range(parts):
        start, stop = dim * part // parts, dim * (part + 1) // parts
        for number in range(-(-size // run)):
            keys = words(seed, 16, (number * each // 4, part, index, 0), each)[: stop - start]
            order = sorted(range(len(keys)), key=keys.__getitem__)
            for place, row in enumerate(order):
                i = number * run + row
                if row < run and i < size:
                    found[i, start + place] = -1.0 if keys[row] & 1 else 1.0
    return found / parts**0.5
