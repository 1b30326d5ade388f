from outrider.policy.thinking import Thinking

PLAIN = 0.0001


def thinking_of(*drafting: float) -> Thinking:
    thinking = Thinking()
    for _ in range(50):
        thinking.observe(1, PLAIN, is_drafting=False)
    for seconds in drafting:
        thinking.observe(1, seconds, is_drafting=True)
    return thinking


def test_what_thinking_takes_more_with_drafts_is_learned():
    thinking = thinking_of(*[0.0003] * 50)
    assert abs(thinking.beyond_idle(1) - 0.0002) < 1e-9
    assert thinking.beyond_idle(8) == 0.0


def test_a_first_step_in_which_much_is_done_once_for_all_counts_for_nothing():
    assert thinking_of(1.0).beyond_idle(1) == 0.0
    assert abs(thinking_of(1.0, 0.0003).beyond_idle(1) - 0.0002) < 1e-9


def test_one_slow_step_does_not_count_for_more_than_twice_what_was_thought():
    assert thinking_of(0.0003, 0.0003, 0.0003, 1.0).beyond_idle(1) <= 0.00035


def test_without_drafts_it_is_forgotten_what_they_take():
    thinking = thinking_of(*[0.01] * 10)
    for _ in range(5000):
        thinking.observe(1, PLAIN, is_drafting=False)
    assert thinking.beyond_idle(1) < 0.01 * 0.0099
