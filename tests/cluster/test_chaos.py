"""A short round of the random faults that `make chaos` plays for an hour."""

from __future__ import annotations

import pytest
from cluster import chaos
from cluster.sweeps import Desk


@pytest.mark.timeout(600)
def test_a_quarter_of_a_minute_of_random_faults_ends_with_the_undisturbed_ranking(desk: Desk) -> None:
    outcome = chaos.run(desk, 15, seed=5, epochs=6)
    assert outcome.rounds == 1
    assert sum(outcome.faults.values()) >= 2, outcome.faults
    assert not outcome.problems
