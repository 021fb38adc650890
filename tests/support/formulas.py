"""Parts of a network written out in numpy, for tests that need one as a step."""

from __future__ import annotations

import numpy as np

LAYER_NORM_EPS = 1e-5  # torch's default


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(..., d) -> (..., d): mean 0 and variance 1 over the channels of each token, then weight and bias."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + LAYER_NORM_EPS) * weight + bias


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    shares = np.exp(x - x.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
