"""The scenarios of the guest on the memory model: the same within a factor of two, where nothing is demoted.

What is demoted is not: of pages that nothing has used for four seconds the model takes the next ones by frame number,
the kernel those that have been there for longest.
"""

import pytest

from tests.on_model import GUEST_ROWS, guest_rows, ratios, row_on_model
from tests.vm.guest.scenarios import SCENARIOS


@pytest.mark.parametrize(
    "name", ["scattered sweep", "contiguous sweep", "huge sweep", "scattered random", "huge random", "moving"]
)
def test_the_model_is_within_a_factor_of_two_of_the_guest(name):
    found = ratios(row_on_model(SCENARIOS[name]), guest_rows(GUEST_ROWS)[name])
    assert found.keys() == {"seconds_to_90", "promoted"}
    assert all(0.5 <= ratio <= 2 for ratio in found.values()), found
