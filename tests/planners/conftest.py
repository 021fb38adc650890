"""What the planner's tests share."""

from __future__ import annotations

import pytest

from mvl_auto.planners import selection as cost
from mvl_auto.planners.cost.estimate import estimate_memory


@pytest.fixture(scope="module")
def estimated():
    """What a network takes is estimated where it would be measured: faster, and the search is the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "_tensors", estimate_memory)
        yield
