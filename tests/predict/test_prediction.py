"""Predictions are right where the truth is known, and their intervals hold it as often as they say."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import median

import pytest

from outrider.predict.clock import Later, of_turns, parts_of
from outrider.predict.costs import Costs
from outrider.predict.interval import Uncertainty, combined, jackknife, share_interval, student_quantile
from outrider.predict.prediction import Predictor, break_even
from outrider.predict.together import ROWS_AS_THEY_ARE, as_they_are
from outrider.predict.trace import Root
from tests.predict.simulator import World, seeded, trace_of


def truth(world, depth, num_sequences=1):
    """Of so many prompts that chance is gone."""
    predictor = Predictor(world.quiet().timings(1, seeded(0), concurrencies=(num_sequences,)), ROWS_AS_THEY_ARE)
    return predictor.predict("model", world.traces(3000, seeded(99)), depth, num_sequences).speedup.value


@pytest.mark.parametrize("depth", [1, 3, 4, 6])
@pytest.mark.parametrize("num_sequences", [1, 4])
def test_a_speedup_is_tokens_over_seconds(depth, num_sequences):
    world = World(spread=0.0)
    predictor = Predictor(world.quiet().timings(2, seeded(0), concurrencies=(1, 4)), ROWS_AS_THEY_ARE)
    found = predictor.predict("model", [trace_of([True] * 900)] * 3, depth, num_sequences)
    step, plain = sum(world.seconds(num_sequences, depth)), sum(world.seconds(num_sequences, 0))
    assert found.tokens_per_step == pytest.approx(depth + 1, rel=0.01)
    assert found.speedup.value == pytest.approx((depth + 1) * plain / step, rel=0.01)
    assert sum(found.seconds.values()) == pytest.approx(step, rel=0.01)


def test_a_depth_that_was_not_timed_lies_between_those_that_were():
    costs = Costs(World().quiet().timings(1, seeded(0)), as_they_are, is_greedy=True, num_sequences=1)
    assert costs.step(3, 4).total == pytest.approx(sum(World().seconds(1, 3)))
    assert costs.draft_step == pytest.approx(World().draft_step)


def test_nothing_is_predicted_that_was_not_timed():
    predictor = Predictor(World().timings(2, seeded(0)), ROWS_AS_THEY_ARE)
    assert predictor.predict("model", [trace_of([True] * 50)] * 2, 2, 8) is None
    assert predictor.predict("model", [trace_of([True] * 50, temperature=1.0)] * 2, 2, 1) is None


def looked_up(run, gap, times):
    """Guesses in runs, and nothing at all between them."""
    roots = [*[Root(8, 8, is_modelled=False)] * run, *[Root(0, 0, is_modelled=False)] * gap] * times
    return trace_of([True] * len(roots), roots=tuple(roots))


def test_steps_pay_for_changes_of_the_number_of_rows():
    timings, traces = World(other=0.0).quiet().timings(2, seeded(0)), [looked_up(9, 4, 10)] * 2
    free = Predictor(timings, ROWS_AS_THEY_ARE).predict("x", traces, 8, 1)
    dear = Predictor(timings, ROWS_AS_THEY_ARE._replace(change_seconds=3.0)).predict("x", traces, 8, 1)
    # Of five steps, four without guesses, two compute other rows than the step before, but for the text's first.
    assert dear.seconds["target"] - free.seconds["target"] == pytest.approx(3.0 * (10 * 2 - 1) / (10 * 5))
    assert dear.speedup.value < free.speedup.value


def test_a_step_without_guesses_pays_for_the_rows_that_the_target_stays_at():
    timings, traces = World(other=0.0).quiet().timings(2, seeded(0)), [looked_up(9, 4, 10)] * 2
    (nine, one) = (
        Predictor(timings, ROWS_AS_THEY_ARE._replace(in_turn=lambda rows=rows: lambda num_rows: max(num_rows, rows)))
        for rows in (9, 1)
    )
    more = nine.predict("x", traces, 8, 1).seconds["target"] - one.predict("x", traces, 8, 1).seconds["target"]
    assert more == pytest.approx(8 * World().target_row * 4 / 5, rel=0.02)


def test_steps_that_ask_no_model_pay_for_no_draft_step():
    predictor = Predictor(World().quiet().timings(2, seeded(0)), ROWS_AS_THEY_ARE)
    looked_up, modelled = (
        predictor.predict("x", [trace_of([True] * 400, is_modelled=each)] * 2, 4, 1) for each in (False, True)
    )
    assert looked_up.seconds["draft"] == 0
    assert modelled.seconds["draft"] == pytest.approx(4 * World().draft_step, rel=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_machine_drift_that_all_settings_share_costs_no_certainty(seed):
    world = World(noise=0.01, drift=0.3)
    generator = seeded(seed)
    found = Predictor(world.timings(6, generator), ROWS_AS_THEY_ARE).predict(
        "model", world.traces(200, generator), 4, 1
    )
    assert found.speedup.high / found.speedup.low < 1.35


@pytest.mark.statistical
def test_the_interval_holds_the_truth_as_often_as_it_says():
    # 300 worlds: at a true coverage of 95 %, fewer than 272 or more than 297 hold with a chance below 1 in 1,000.
    world, depth, num_held = World(noise=0.05), 4, 0
    expected = truth(world, depth)
    for seed in range(300):
        generator = seeded(seed)
        predictor = Predictor(world.timings(6, generator), ROWS_AS_THEY_ARE, drift=0.0)
        low, high = predictor.predict("model", world.traces(16, generator), depth, 1).speedup[1:]
        num_held += low <= expected <= high
    assert 272 <= num_held <= 297


@pytest.mark.statistical
def test_an_interval_for_so_many_other_prompts_holds_what_they_show():
    # As above; an interval for all prompts there are would hold two thirds to three quarters of these.
    world, num_held, num_held_of_all = World(noise=0.02), 0, 0
    exact = Predictor(world.quiet().timings(1, seeded(0)), ROWS_AS_THEY_ARE)
    for seed in range(300):
        generator = seeded(seed)
        predictor = Predictor(world.timings(6, generator), ROWS_AS_THEY_ARE, drift=0.0)
        traces, others = world.traces(16, generator), world.traces(8, generator)
        measured = exact.predict("model", others, 4, 1).speedup.value
        for_all, for_others = (
            predictor.predict("model", traces, 4, 1, later=later).speedup
            for later in (None, Later(len(others), 10**6, 10**6, 8))
        )
        num_held += for_others.low <= measured <= for_others.high
        num_held_of_all += for_all.low <= measured <= for_all.high
    assert 272 <= num_held <= 297
    assert num_held_of_all < 262


@pytest.mark.statistical
@pytest.mark.parametrize("num_rounds", [2, 20])
def test_an_interval_holds_what_is_measured_in_a_few_turns_of_a_machine_that_is_not_always_as_fast(num_rounds):
    # As above; an interval for any number of turns would hold two thirds of these.
    world, num_held, num_held_of_all = World(noise=0.05, drift=0.1), 0, 0
    exact = Predictor(world.quiet().timings(1, seeded(0)), ROWS_AS_THEY_ARE)
    for seed in range(300):
        generator = seeded(seed)
        predictor = Predictor(world.timings(num_rounds, generator), ROWS_AS_THEY_ARE, drift=0.0)
        traces, others = world.traces(64, generator), world.traces(64, generator)
        turns = [[generator.gauss(0, world.drift) for _ in range(number)] for number in (2, 4)]
        slower = sum(turns[0]) / 2 - sum(turns[1]) / 4
        measured = exact.predict("model", others, 4, 1).speedup.value * math.exp(-slower)
        for_turns, for_all = (
            predictor.predict("model", traces, 4, 1, later=Later(64, *each, 800)).speedup
            for each in ((2, 4), (10**6, 10**6))
        )
        num_held += for_turns.low <= measured <= for_turns.high
        num_held_of_all += for_all.low <= measured <= for_all.high
    assert 262 <= num_held <= 299
    assert num_held_of_all < 250


@pytest.mark.parametrize("num_sequences", [1, 4])
def test_going_over_from_prompts_is_paid_once_by_texts_that_begin_together_and_reading_by_each(num_sequences):
    timings = World().quiet().timings(2, seeded(0), concurrencies=(num_sequences,))
    slow = [replace(timing, first=30.0 if timing.depth else 10.0) for timing in timings]
    traces = [trace_of([True] * 100)] * 4
    step, plain = (sum(World().seconds(num_sequences, depth)) for depth in (4, 0))
    found, known = (
        Predictor(each, ROWS_AS_THEY_ARE).predict("model", traces, 4, num_sequences) for each in (slow, timings)
    )
    seconds, beginning = 100 * plain / known.speedup.value, 10 + num_sequences * (30 - 10)
    assert found.speedup.value == pytest.approx((100 * plain + 10) / (seconds + beginning), rel=0.001)
    assert seconds == pytest.approx(20 * step, rel=0.01)
    assert sum(found.seconds.values()) == pytest.approx(sum(known.seconds.values()) + beginning / 20, rel=0.001)


def test_a_slow_round_that_lacks_a_setting_slows_no_other():
    generator = seeded(0)
    timings = World(noise=0.0, drift=0.0).timings(3, generator)
    slow = [timing.over(0.5) if timing.round == 1 else timing for timing in timings]
    lacking = [timing for timing in slow if (timing.round, timing.depth) != (1, 0)]
    found, whole = (
        Costs(each, as_they_are, is_greedy=True, num_sequences=1).step(4, 5).total for each in (lacking, timings)
    )
    plain = Costs(lacking, as_they_are, is_greedy=True, num_sequences=1).plain.total
    assert found / plain == pytest.approx(whole / sum(World().seconds(1, 0)), rel=0.01)


def as_five(rows):
    return max(rows, 5)


def test_forwards_of_as_many_rows_take_the_same_where_rounds_do_not_show_otherwise():
    # One setting's timing is disturbed, and that is not to look as if plain decoding were slow.
    timings = World(target_row=0.0).quiet().timings(4, seeded(0))
    factors = {0: 1.1, 1: 0.93, 2: 1.12, 3: 0.95}
    noisy = [each if each.depth else replace(each, target=each.target * factors[each.round]) for each in timings]
    costs = Costs(noisy, as_five, is_greedy=True, num_sequences=1)
    assert costs.step(4, 5).target == costs.plain.target
    assert costs.step(8, 9).target == pytest.approx(1.0, rel=0.05)


def test_where_rounds_show_that_a_drafter_slows_the_target_down_it_is_believed():
    timings = World(target_row=0.0, noise=0.001, drift=0.0).timings(6, seeded(0))
    slow = [replace(each, target=each.target * 1.1) if each.depth else each for each in timings]
    costs = Costs(slow, as_five, is_greedy=True, num_sequences=1)
    assert costs.step(4, 5).target / costs.plain.target == pytest.approx(1.1, rel=0.01)


def test_one_prompt_or_one_round_says_nothing_of_others():
    world = World()
    alone = Predictor(world.timings(4, seeded(0)), ROWS_AS_THEY_ARE).predict("m", world.traces(1, seeded(1)), 4, 1)
    once = Predictor(world.timings(1, seeded(0)), ROWS_AS_THEY_ARE).predict("m", world.traces(9, seeded(1)), 4, 1)
    for found in (alone, once):
        assert found.speedup.low == 0
        assert found.speedup.high == math.inf


@pytest.mark.statistical
def test_two_rounds_are_few_but_of_five_depths_and_their_intervals_say_something():
    # As above. From the two values of one depth alone, half of all intervals would reach to twice the speedup and more.
    world, depth, num_held, widths = World(noise=0.08), 4, 0, []
    expected = truth(world, depth)
    for seed in range(300):
        generator = seeded(seed)
        predictor = Predictor(world.timings(2, generator), ROWS_AS_THEY_ARE, drift=0.0)
        value, low, high = predictor.predict("model", world.traces(32, generator), depth, 1).speedup
        num_held += low <= expected <= high
        widths.append(high / value)
    assert 272 <= num_held <= 298
    assert median(widths) < 1.3
    assert max(widths) < 2.5


def test_one_round_is_as_sure_as_one_of_another_number_of_texts():
    world, traces = World(), World().traces(16, seeded(1))
    timings = [*world.timings(6, seeded(0)), *world.timings(1, seeded(2), concurrencies=(4,))]
    predictor = Predictor(timings, ROWS_AS_THEY_ARE)
    once, often = (predictor.predict("m", traces, 4, number).speedup for number in (4, 1))
    assert 1.0 < often.high / often.value < once.high / once.value < 1.5


def test_how_a_machine_differs_from_itself_is_asked_of_all_rounds_where_those_of_the_load_are_few():
    # From two rounds alone the slow part would have one degree of freedom, and Student's quantile would be 13.
    world, later = World(noise=0.02, drift=0.1), Later(18, 2, 4, 80)
    few = world.timings(2, seeded(3), concurrencies=(8,))
    slow, quick = of_turns([*few, *world.timings(20, seeded(4))], 8, later)
    assert slow.freedom == 20
    assert slow.variance == pytest.approx(0.1**2 * (1 / 2 + 1 / 4), rel=0.5)
    assert quick.variance == pytest.approx(0.02**2 * (1 / 2 + 1 / 4) / 10, rel=0.5)
    assert of_turns(few, 8, later)[0].freedom == 1


def test_slow_rounds_in_a_row_say_less_than_as_many_here_and_there():
    generator = seeded(0)
    timings, traces = World(noise=0.01, drift=0.0).timings(32, generator), World(spread=0.01).traces(64, generator)

    def width(slow):
        seconds = [each.over(0.8) if each.depth == 4 and each.round in slow else each for each in timings]
        low, high = Predictor(seconds, ROWS_AS_THEY_ARE, drift=0.0).predict("m", traces, 4, 1).speedup[1:]
        return math.log(high / low)

    assert width(range(16)) > 1.5 * width(range(0, 32, 2))
    assert [number for part in parts_of(range(32)) for number in part] == [*range(32)]


@pytest.mark.parametrize(("depth", "agreement"), [(1, 0.4), (4, 0.7), (8, 0.95)])
def test_break_even_is_where_the_tokens_are_worth_the_step(depth, agreement):
    ratio = sum(agreement**power for power in range(depth + 1))
    assert break_even(depth, ratio) == pytest.approx(agreement, abs=1e-6)


def test_a_step_that_costs_more_than_all_its_tokens_never_pays():
    assert break_even(2, 3.1) is None
    assert break_even(2, 3.0) == pytest.approx(1.0)


def test_the_jackknife_of_a_geometric_mean_is_its_variance():
    values = [1.0, 2.0, 4.0, 8.0]
    logs = [math.log(value) for value in values]
    mean = sum(logs) / 4
    wanted = sum((each - mean) ** 2 for each in logs) / 3 / 4
    found = jackknife(values, lambda units: math.exp(sum(map(math.log, units)) / len(units)))
    assert found.variance == pytest.approx(wanted)
    assert found.freedom == 3


@pytest.mark.parametrize(
    ("freedom", "value"),
    [(1, 12.706), (1.5, 6.07), (2, 4.303), (2.3, 3.80), (3, 3.182), (5, 2.571), (15, 2.131), (1e9, 1.96)],
)
def test_students_quantile(freedom, value):
    assert student_quantile(freedom) == pytest.approx(value, rel=0.03)


def test_sources_of_error_add_up():
    found = combined(2.0, [Uncertainty(0.0009, math.inf), Uncertainty(0.0016, math.inf)])
    assert found.high == pytest.approx(2.0 * math.exp(1.96 * 0.05), rel=1e-3)
    assert combined(2.0, [Uncertainty(0.0, 3)]) == (2.0, 2.0, 2.0)


def test_a_share_is_resampled_by_prompt():
    found = share_interval([(10, 10), (0, 10)] * 4)
    assert found.value == 0.5
    assert found.low < 0.3
    assert found.high > 0.7
    assert share_interval([(5, 10)] * 8) == (0.5, 0.5, 0.5)
    assert share_interval([]) is None
