"""The network learns what is rewarded, by the gradient that the paper gives."""

import numpy as np
import pytest
import torch

from controller.samplers.policy_network import Batch, PolicyNetwork, draw

UNITS, ACTIONS = 4, 3


def network(seed=0):
    return PolicyNetwork(units=UNITS, fixed=2, moving=3, actions=ACTIONS, seed=seed)


def batch(seed=0, episodes=5):
    generator = np.random.default_rng(seed)
    prior = generator.normal(size=(episodes, UNITS, ACTIONS))
    prior[:, 1, 2] = -np.inf
    return Batch(
        fixed_US=generator.random((UNITS, 2)),
        moving_BUD=generator.random((episodes, UNITS, 3)),
        prior_BUC=prior,
        actions_BU=generator.integers(0, 2, size=(episodes, UNITS)),
        advantages_B=generator.normal(size=episodes),
    )


def probabilities(subject, found, episode, unit):
    parts = subject.unit_part(found.fixed_US)
    logits = subject.logits(parts[unit], found.moving_BUD[episode, unit]) + found.prior_BUC[episode, unit]
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def objective(subject, found, entropy_weight=0.01):
    """Naive: mean of advantage times log-probability, and of entropy, over episodes and steps."""
    total = 0.0
    for episode, advantage in enumerate(found.advantages_B):
        for unit in range(UNITS):
            p = probabilities(subject, found, episode, unit)
            entropy = -sum(x * np.log(x) for x in p if x > 0)
            total += advantage * np.log(p[found.actions_BU[episode, unit]]) + entropy_weight * entropy
    return total / len(found.advantages_B) / UNITS


def test_its_gradient_is_that_of_the_naive_objective():
    subject, found = network(), batch()
    with torch.no_grad():
        subject._parameters["output_HC"].normal_(generator=torch.Generator().manual_seed(1))
    subject._keep_arrays()
    expected = {}
    for name, position in [("output_HC", (3, 1)), ("embedding_UE", (2, 5)), ("fixed_SH", (1, 7)), ("bias_H", (4,))]:
        array, step = subject._arrays[name], 1e-6
        array[position] += step
        above = objective(subject, found)
        array[position] -= 2 * step
        below = objective(subject, found)
        array[position] += step
        expected[name, position] = (above - below) / (2 * step)
    subject.learn(found)
    for (name, position), slope in expected.items():
        gradient = float(subject._parameters[name].grad[position])
        assert gradient == pytest.approx(-slope, abs=1e-7), name


def test_at_first_the_prior_decides():
    found = batch()
    p = probabilities(network(), found, 0, 0)
    weights = np.exp(found.prior_BUC[0, 0])
    np.testing.assert_allclose(p, weights / weights.sum())


def test_it_comes_to_do_what_is_rewarded():
    subject, generator = network(), np.random.default_rng(0)
    found = batch()
    flat = np.zeros((8, UNITS, ACTIONS))
    for _ in range(150):
        moving = generator.random((8, UNITS, 3))
        parts = subject.unit_part(found.fixed_US)
        actions = np.array(
            [[draw(subject.logits(parts[u], row[u]), generator) for u in range(UNITS)] for row in moving]
        )
        # Each unit has another action that pays.
        reward = (actions == np.arange(UNITS) % ACTIONS).mean(axis=1)
        subject.learn(
            Batch(
                fixed_US=found.fixed_US,
                moving_BUD=moving,
                prior_BUC=flat,
                actions_BU=actions,
                advantages_B=reward - reward.mean(),
            )
        )
    parts = subject.unit_part(found.fixed_US)
    best = [int(np.argmax(subject.logits(parts[u], np.full(3, 0.5)))) for u in range(UNITS)]
    assert best == [0, 1, 2, 0]


def test_the_seed_decides():
    first, second, other = network(), network(), network(seed=1)
    for subject in (first, second, other):
        subject.learn(batch())
        subject.learn(batch(seed=1))
    a, b, c = (subject.unit_part(batch().fixed_US) for subject in (first, second, other))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_closed_actions_are_never_drawn():
    generator = np.random.default_rng(0)
    assert {draw(np.array([0.0, -np.inf, -50.0]), generator) for _ in range(200)} == {0}
