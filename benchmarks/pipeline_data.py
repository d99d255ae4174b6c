"""Colour images of handwritten digits: scikit-learn's, turned, resized and shifted, on scenes of drawn colours.

Training images show other digits than those that are held out.
"""

from __future__ import annotations

import numpy as np

SIDE, CLASSES = 16, 10
DIGITS = 1437
"""Of scikit-learn's 1,797; images that are held out show the other 360."""

TURN, SIZES, SHIFT = 0.25, (1.2, 1.8), 1.5
"""Radians either way; pixels of an image for one of a digit, least and most; pixels either way."""

CONTRAST, WAVES, NOISE = 0.5, 0.2, 0.05
"""Least distance of the ink's colour from that of the ground, channels being 0 to 1; amplitude of the waves on the
ground; standard deviation of a pixel."""


def images(train: int, held: int, seed: int = 0) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """So many images (n, 3, 16, 16), of mean 0 and spread about 1, with labels (n,), to train on and to hold out."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    order = np.random.default_rng([seed, 0]).permutation(len(raw.target))
    digits, labels = raw.images[order] / 16, raw.target[order]
    known, unknown = slice(0, DIGITS), slice(DIGITS, None)
    return (
        drawn(digits[known], labels[known], train, [seed, 1]),
        drawn(digits[unknown], labels[unknown], held, [seed, 2]),
    )


def drawn(digits: np.ndarray, labels: np.ndarray, count: int, seed: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """`count` images of digits (n, 8, 8), each of which comes as often as the others."""
    draw = np.random.default_rng(seed)
    chosen = np.concatenate([draw.permutation(len(digits)) for _ in range(-(-count // len(digits)))])[:count]
    found = np.stack([_scene(draw, digits[i]) for i in chosen])
    return ((found - 0.5) / 0.25).astype(np.float32), labels[chosen]


def _scene(draw: np.random.Generator, digit: np.ndarray) -> np.ndarray:
    """An image (3, 16, 16) of one digit."""
    places = np.arange(SIDE) - (SIDE - 1) / 2
    y, x = np.meshgrid(places, places, indexing="ij")
    turn, wave = draw.uniform(-TURN, TURN), draw.uniform(0, np.pi)
    size = draw.uniform(*SIZES)
    dy, dx = draw.uniform(-SHIFT, SHIFT, 2)
    u = (np.cos(turn) * (y - dy) + np.sin(turn) * (x - dx)) / size
    v = (np.cos(turn) * (x - dx) - np.sin(turn) * (y - dy)) / size
    mask = _sampled(digit, u + 3.5, v + 3.5)
    ground = draw.uniform(0, 1, 3)
    ink = draw.uniform(0, 1, 3)
    while np.linalg.norm(ink - ground) < CONTRAST:
        ink = draw.uniform(0, 1, 3)
    phase, length = draw.uniform(0, 2 * np.pi), draw.uniform(4, 12)
    along = np.cos(wave) * y + np.sin(wave) * x
    tint = draw.uniform(-WAVES, WAVES, 3)
    scene = ground[:, None, None] + tint[:, None, None] * np.sin(2 * np.pi * along / length + phase)
    scene = scene + mask * (ink[:, None, None] - scene)
    return np.clip(scene + NOISE * draw.standard_normal(scene.shape), 0, 1)


def _sampled(digit: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Its pixels at real places, linear between them and nothing outside."""
    from scipy.ndimage import map_coordinates

    found: np.ndarray = map_coordinates(digit, [y, x], order=1, mode="constant")
    return found
