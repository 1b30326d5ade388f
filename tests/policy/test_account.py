"""What drafting may lose: less in a long run in which it never gains."""

from __future__ import annotations

from outrider.policy.account import GROWTH, OLD_SHARE, YOUNG_STEPS, Account


def lost(net: float) -> float:
    """Of the last thousand steps, what could be lost where all that may be is; a step in fifty brings `net`."""
    account, spent = Account(), 0.0
    for index in range(4 * YOUNG_STEPS):
        may_lose = account.affords(0.1)
        account.enter(-0.1 if may_lose else net * (index % 50 == 0), is_probe=may_lose)
        spent += 0.1 * may_lose * (index >= 4 * YOUNG_STEPS - 1000)
    return spent


def test_drafting_that_never_gains_may_lose_less_and_less():
    assert 0 < lost(0.0) <= 1.1 * 1000 * OLD_SHARE * GROWTH
    assert lost(2.0) >= 2 * lost(0.0)
