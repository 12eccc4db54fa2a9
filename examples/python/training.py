"""A small neural network, trained on a spiral of three classes. Each epoch is an item."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

Array = Any


def spiral(points: int, classes: int, seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(classes), points)
    radius = np.tile(np.linspace(0.1, 1, points), classes)
    angle = label * 4 + radius * 4 + rng.normal(scale=0.15, size=label.size)
    return np.column_stack([radius * np.sin(angle), radius * np.cos(angle)]), label


def train(epochs: int, rate: float = 1.0, hidden: int = 64, seed: int = 1) -> Iterator[Any]:
    """Yield the loss and the accuracy of each epoch; whoever takes no more ends the training."""
    inputs, label = spiral(150, 3, seed)
    rng = np.random.default_rng(seed)
    weights = [rng.normal(scale=0.1, size=(2, hidden)), rng.normal(scale=0.1, size=(hidden, 3))]
    biases = [np.zeros(hidden), np.zeros(3)]
    wanted = np.eye(3)[label]
    epoch = 0
    try:
        for epoch in range(1, epochs + 1):
            active = np.maximum(inputs @ weights[0] + biases[0], 0)
            scores = active @ weights[1] + biases[1]
            scores -= scores.max(axis=1, keepdims=True)
            guess = np.exp(scores)
            guess /= guess.sum(axis=1, keepdims=True)

            slope = (guess - wanted) / label.size
            back = (slope @ weights[1].T) * (active > 0)
            weights[1] -= rate * active.T @ slope
            biases[1] -= rate * slope.sum(axis=0)
            weights[0] -= rate * inputs.T @ back
            biases[0] -= rate * back.sum(axis=0)

            loss = -np.log(guess[np.arange(label.size), label]).mean()
            hits = (guess.argmax(axis=1) == label).mean()
            yield {"epoch": epoch, "loss": float(loss), "accuracy": float(hits)}
    finally:
        print(f"python: trained for {epoch} epochs", flush=True)
