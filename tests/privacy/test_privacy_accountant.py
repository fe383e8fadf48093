"""Opacus' accountants beside dp-accounting 0.6.0, which wants an environment of its own.

The table is from `benchmarks/privacy_accountant.py`: noise multiplier, sampling rate, steps, delta;
epsilon by privacy loss distributions and by Renyi divergences.
"""

from __future__ import annotations

import pytest

from purpleteam.defences.training.dp_sgd import epsilon_of, noise_for

DP_ACCOUNTING = [
    (0.8, 0.01, 100, 1e-5, 1.5108, 2.1853),
    (0.8, 0.0745, 1000, 1e-6, 30.6800, 33.1417),
    (1.5, 0.01, 1000, 1e-5, 0.9176, 1.0130),
    (1.5, 0.0745, 100, 1e-5, 2.5708, 2.8675),
    (4.0, 0.0745, 1000, 1e-6, 2.7896, 2.9970),
    (1.0, 1.0, 1, 1e-5, 4.3772, 4.7285),
    (6.0, 1.0, 30, 1e-5, 3.9400, 4.2597),
]
every = pytest.mark.parametrize(("noise", "rate", "steps", "delta", "pld", "rdp"), DP_ACCOUNTING)


@every
def test_prv_is_above_the_privacy_loss_distribution_by_its_own_error(
    noise: float, rate: float, steps: int, delta: float, pld: float, rdp: float
) -> None:
    assert 0 <= epsilon_of(noise, rate, steps, delta, "prv") - pld <= 0.02


@every
def test_rdp_agrees_and_claims_less_than_prv(
    noise: float, rate: float, steps: int, delta: float, pld: float, rdp: float
) -> None:
    found = epsilon_of(noise, rate, steps, delta, "rdp")
    assert found == pytest.approx(rdp, rel=0.03)  # they ask for other orders
    assert found > epsilon_of(noise, rate, steps, delta, "prv")


@pytest.mark.parametrize("epsilon", [0.5, 3.0, 8.0])
def test_the_noise_for_a_budget_spends_nearly_all_of_it(epsilon: float) -> None:
    noise = noise_for(epsilon, 1e-5, 4096 / 55000, 420, "prv")
    assert 0.98 * epsilon < epsilon_of(noise, 4096 / 55000, 420, 1e-5, "prv") <= epsilon
