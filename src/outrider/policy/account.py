"""What drafting may lose: a bound that holds however wrong every estimate is. Knows numbers only.

Losses are counted in plain steps of the batch: seconds that a step took longer than plain decoding would have, less
what its accepted tokens saved. They are paid from a small allowance that grows with each step decoded, and from some of
what was gained: enough that a text on which drafting fails does not keep it from the next, and no more, lest a good
past pay for a bad present. Bad luck is left out of what is booked, up to a bound of its own (`luck`). Probes, which are
not expected to gain, have a part of the allowance.
"""

from __future__ import annotations

ALLOWANCE, GROWTH = 3.5, 0.008
PROBE_ALLOWANCE, PROBE_GROWTH = 2.0, 0.006
# Where drafting has lost more than it gained in some thousand steps, both grow by so much of these only.
YOUNG_STEPS, OLD_SHARE, MEMORY = 1500, 0.4, 0.9995
# Of what drafting has gained in some hundred steps, up to so many plain ones, the share that it may lose again in as
# many: where it mostly pays, a bad stretch is not to end it for longer than the stretch.
LATELY, MAX_LATELY, LATELY_SHARE = 0.99, 30.0, 0.1
# Gains are kept up to so many plain steps, or steps' possible losses: deep drafts lose much at once when they fail.
MAX_KEPT, NUM_STAKES = 7.0, 8.0
LOWEST = -1.0
# What drafters take to read texts before their first guess leaves so much, with which to show what they are worth.
RESERVE = 1.0
# Drafting that has overdrawn the account starts again only once there is a little to lose.
RESTART = 0.3
# Or once guesses that nobody asked for have turned out to be right: then there is so much, after so many steps at
# least, and each time so many times as many, until drafting has earned so much again.
RENEWED, FIRST_PATIENCE, PATIENCE_GROWTH, EARNED = 1.5, 12.0, 2.5, 3.0


class Account:
    """Plain steps that may still be lost.

    Attributes:
        balance: in all.
        probe_balance: by probes.
        debt: invested beyond what there was; growth pays it off first.
        num_steps: decoded so far.
        is_overdrawn: whether more was lost than may be.
    """

    def __init__(self) -> None:
        self.balance = ALLOWANCE
        self.probe_balance = PROBE_ALLOWANCE
        self.debt = 0.0
        self.num_steps = 0
        self.is_overdrawn = False
        self._gained = 0.0  # in some thousand steps
        self._gained_lately = 0.0
        self._num_overdrawn = 0  # steps, this time
        self._patience = FIRST_PATIENCE

    def enter(
        self,
        net: float,
        stake: float = 0.0,
        *,
        is_probe: bool = False,
        looked: float = 0.0,
        invested: float = 0.0,
        owed: float = 0.0,
    ) -> None:
        """A step was decoded, and drafting gained so much in it, or lost it; `stake` is what it could have lost.

        What was `invested` in reading texts, for guesses to come, is taken as far as the reserve; the rest is a debt,
        as is all that is `owed`. Of the probes' part, all of a probe is taken, and what looks took, reading included
        (`looked`).
        """
        self.num_steps += 1
        self._gained = MEMORY * self._gained + net - invested
        self._gained_lately = min(LATELY * self._gained_lately + net - invested, MAX_LATELY)
        share = OLD_SHARE if self.num_steps > YOUNG_STEPS and self._gained < 0 else 1.0
        allowed = share * GROWTH
        most = max(MAX_KEPT, NUM_STAKES * stake, self.balance)
        repaid = min(self.debt, allowed + max(net, 0.0))
        self.debt += max(0.0, invested - self.spare) + owed - repaid
        growth = max(allowed - repaid, 0.0) + LATELY_SHARE * (1 - LATELY) * max(0.0, self._gained_lately)
        growth *= self.balance < ALLOWANCE
        self.balance = max(LOWEST, min(most, self.balance + growth + net))
        self.balance = max(min(self.balance, RESERVE), self.balance - invested)
        self.is_overdrawn = self.balance < (RESTART if self.is_overdrawn else 0.0)
        self._num_overdrawn = self._num_overdrawn + 1 if self.is_overdrawn else 0
        if self.balance >= EARNED:
            self._patience = FIRST_PATIENCE
        growth = share * PROBE_GROWTH + (net - invested - owed if is_probe else -looked)
        self.probe_balance = max(LOWEST, min(PROBE_ALLOWANCE, self.probe_balance + growth))

    def renew(self) -> bool:
        """Guesses looked back on would have paid: whether drafting may therefore start again."""
        if not self.is_overdrawn or self._num_overdrawn < self._patience:
            return False
        self.balance, self.is_overdrawn = max(self.balance, RENEWED), False
        self._patience *= PATIENCE_GROWTH
        return True

    @property
    def spare(self) -> float:
        """What may be invested without a debt."""
        return max(0.0, self.balance - RESERVE)

    def affords(self, loss: float) -> bool:
        """Whether a probe may lose so much."""
        return loss <= min(self.balance, self.probe_balance)
