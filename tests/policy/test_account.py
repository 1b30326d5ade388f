"""What drafting may lose: less in a long run in which it never gains."""

from __future__ import annotations

from outrider.policy.account import GROWTH, LATELY_SHARE, MAX_LATELY, OLD_SHARE, YOUNG_STEPS, Account


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


def overdrawn(num_gains: int) -> Account:
    """After so many steps that gained two plain ones each."""
    account = Account()
    for _ in range(num_gains):
        account.enter(2.0, 1.0)
    while not account.is_overdrawn:
        account.enter(-1.0, 1.0)
    return account


def num_waited(account: Account) -> int:
    """Steps until drafting may begin again."""
    for number in range(1000):
        if not account.is_overdrawn:
            return number
        account.enter(0.0)
    raise AssertionError


def test_where_drafting_gained_much_lately_it_soon_begins_again():
    assert num_waited(overdrawn(0)) > 90
    assert num_waited(overdrawn(200)) < 60


def test_what_was_gained_pays_for_little_once_nothing_is_gained_any_more():
    account, spent = overdrawn(1000), 0.0
    for _ in range(500):
        may_lose = not account.is_overdrawn
        account.enter(-0.2 if may_lose else 0.0, 0.2)
        spent += 0.2 * may_lose
    assert spent <= 500 * GROWTH + MAX_LATELY * LATELY_SHARE + 2.0
