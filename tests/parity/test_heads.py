"""Heads that are trained at once, against a textbook implementation of one head at a time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from bench.catalog.backends import BACKENDS
from bench.network.blueprint import Array
from bench.spec.run import OptimizerName
from bench.training.adapter import Heads
from tests.frameworks import run_module
from tests.parity import heads_worker as given

MOMENTUM, BETA_1, BETA_2, EPSILON = 0.9, 0.9, 0.999, 1e-8


def alone(heads: Heads, place: tuple[int, int], optimizer: OptimizerName) -> dict[str, Array]:
    """Train one head by the formulas of torch.optim.SGD and AdamW (docs.pytorch.org)."""
    tensors = [heads.weights[place].copy(), heads.biases[place].copy()]
    decays = [heads.weight_decays[place], 0.0]
    first, second = [np.zeros_like(t) for t in tensors], [np.zeros_like(t) for t in tensors]
    losses = []
    for step, (chosen, factor) in enumerate(zip(given.BATCHES, given.FACTORS, strict=True), 1):
        x, labels = given.VALUES[chosen[place[0]]], given.LABELS[chosen[place[0]]]
        logits = x @ tensors[0].T + tensors[1]
        losses.append(-log_softmax(logits, axis=1)[np.arange(len(x)), labels].mean())
        error = (softmax(logits, axis=1) - np.eye(given.CLASSES)[labels]) / len(x)
        rate = factor * heads.learning_rates[place]
        for i, gradient in enumerate((error.T @ x, error.sum(0))):
            if optimizer == "sgd":
                first[i] = MOMENTUM * first[i] + gradient + decays[i] * tensors[i]
                tensors[i] = tensors[i] - rate * first[i]
                continue
            tensors[i] = tensors[i] * (1.0 - rate * decays[i])
            first[i] = BETA_1 * first[i] + (1.0 - BETA_1) * gradient
            second[i] = BETA_2 * second[i] + (1.0 - BETA_2) * gradient**2
            root = np.sqrt(second[i] / (1.0 - BETA_2**step)) + EPSILON
            tensors[i] = tensors[i] - rate * first[i] / (1.0 - BETA_1**step) / root
    logits = given.VALUES @ tensors[0].T + tensors[1]
    return {"losses": np.array(losses), "logits": logits, "weights": tensors[0],
            "biases": tensors[1]}  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_head_is_trained_as_if_it_were_alone(backend: str) -> None:
    variables = BACKENDS[backend].variables
    lines = run_module(backend, "tests.parity.heads_worker", variables=variables)
    for optimizer, line in zip(given.OPTIMIZERS, lines, strict=True):
        found = {name: np.array(value) for name, value in line.items()}
        found["losses"] = np.moveaxis(found["losses"], 0, -1)  # (S, R, steps)
        for seed in range(given.SEEDS):
            for each in range(given.EACH):
                wanted = alone(given.HEADS, (seed, each), optimizer)
                for name, value in wanted.items():
                    np.testing.assert_allclose(
                        found[name][seed, each], value, rtol=1e-11,
                        err_msg=f"{optimizer} {seed} {each} {name}",
                    )  # fmt: skip
        still = found["weights"][1, 2]
        assert np.array_equal(still, given.HEADS.weights[1, 2]), "at rate 0 nothing changes"
