"""The scenarios of the guest on the memory model: the same within a factor of two.

Except for the pages demoted with two cgroups, 0.4 of the guest's: there kswapd takes 4,096 pages whenever it wakes, in
the model as many as reach the high watermark, which on a node of a gigabyte is 250 pages above low.
"""

import pytest

from tests.on_model import GUEST_ROWS, guest_rows, ratios, row_on_model
from tests.vm.guest.scenarios import SCENARIOS

ROOMY = ["scattered sweep", "contiguous sweep", "huge sweep", "scattered random", "huge random", "moving"]
FULL = {
    "full, 4 KiB": {"seconds_to_90", "promoted", "demoted"},
    "full, huge": {"seconds_to_90", "promoted", "demoted"},
    "two cgroups": {"seconds_to_90", "promoted"},
}


@pytest.mark.parametrize(
    ("name", "figures"), [*((name, {"seconds_to_90", "promoted"}) for name in ROOMY), *FULL.items()]
)
def test_the_model_is_within_a_factor_of_two_of_the_guest(name, figures):
    ratio = ratios(row_on_model(SCENARIOS[name]), guest_rows(GUEST_ROWS)[name])
    assert figures <= ratio.keys()
    assert all(0.5 <= ratio[figure] <= 2 for figure in figures), ratio
