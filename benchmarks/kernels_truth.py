"""Kernels of the first examples by their definition: rows of the Jacobian in NumPy, one after the other, in float64."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .kernels_networks import Given

FEW = 4
"""Examples whose block of the kernel is compared with the truth."""


def truth(given: Given, kind: str) -> np.ndarray:
    """The block (FEW, FEW) or (FEW·O, FEW·O) of a kernel; of kind "trace" the number, over all examples."""
    if kind == "trace":
        return np.array(sum(float(row @ row) for x in given.x for row in rows(given, x)))
    jacobian = np.stack([row for x in given.x[:FEW] for row in rows(given, x)])
    if kind == "full":
        return jacobian @ jacobian.T
    sums = jacobian.reshape(-1, given.outputs, jacobian.shape[1]).sum(axis=1)
    return sums @ sums.T / given.outputs


def rows(given: Given, x: np.ndarray) -> Iterator[np.ndarray]:
    """Gradients (P,) of the outputs of one example."""
    layers = [(w.astype(np.float64), b.astype(np.float64)) for w, b in given.layers]
    convolutions = sum(w.ndim == 4 for w, _ in layers)
    inputs, heights, value = [], [], x.astype(np.float64)
    for number, (w, b) in enumerate(layers):
        inputs.append(value)
        if w.ndim == 4:
            height = _convolved(value, w) + b[:, None, None]
            value = _pooled(np.maximum(height, 0)) if number < convolutions - 1 else np.maximum(height, 0).mean((1, 2))
        else:
            height = w @ value + b
            value = np.maximum(height, 0)
        heights.append(height)
    for output in np.eye(given.outputs):
        back, gradients = output, []
        for number in reversed(range(len(layers))):
            w, _ = layers[number]
            if w.ndim == 4:
                gradients += [back.sum((1, 2)), _patches(inputs[number], back)]
            else:
                gradients += [back, np.outer(back, inputs[number])]
            if number:
                back = _pulled(w, back)
                below = heights[number - 1]
                if layers[number - 1][0].ndim == 4:
                    back = _unpooled(back, below.shape)
                back = back * (below > 0)
        yield np.concatenate([g.ravel() for g in reversed(gradients)])


def _shifted(image: np.ndarray) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """The image (c, h, w), moved to each of the nine places, zeros coming in."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    h, w = image.shape[1:]
    for i in range(3):
        for j in range(3):
            yield (i, j), padded[:, i : i + h, j : j + w]


def _convolved(image: np.ndarray, w: np.ndarray) -> np.ndarray:
    return sum(np.einsum("qp,phw->qhw", w[:, :, i, j], moved) for (i, j), moved in _shifted(image))


def _patches(image: np.ndarray, back: np.ndarray) -> np.ndarray:
    """The gradient (q, p, 3, 3) of a convolution's weights."""
    found = np.empty((len(back), len(image), 3, 3))
    for (i, j), moved in _shifted(image):
        found[:, :, i, j] = np.einsum("qhw,phw->qp", back, moved)
    return found


def _pulled(w: np.ndarray, back: np.ndarray) -> np.ndarray:
    """The cotangent of a layer's input: of a convolution, one by the turned kernel."""
    return w.T @ back if w.ndim == 2 else _convolved(back, w[:, :, ::-1, ::-1].swapaxes(0, 1))


def _pooled(image: np.ndarray) -> np.ndarray:
    c, h, w = image.shape
    return image.reshape(c, h // 2, 2, w // 2, 2).mean((2, 4))


def _unpooled(back: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Each cotangent spread over the pixels whose mean was taken: all of them, or 2 × 2."""
    if back.ndim == 1:
        return np.broadcast_to(back[:, None, None] / (shape[1] * shape[2]), shape)
    return back.repeat(2, axis=1).repeat(2, axis=2) / 4
