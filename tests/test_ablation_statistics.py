"""Statistics of ablate: Student's t, tests of means, a shared spread, Holm's correction, and budgets."""

import math
from random import Random

import pytest

from lightning_xt.commands.ablation.budget import Budget
from lightning_xt.commands.ablation.mean_tests import (
    Spread,
    average,
    compare_means,
    compute_contrast,
    correct_for_number,
    find_spread,
    moderate,
)
from lightning_xt.commands.ablation.row_verdicts import judge_rows
from lightning_xt.commands.ablation.shared_spread import share_spread
from lightning_xt.commands.ablation.student_t import find_p_value, find_quantile, regularized_beta
from lightning_xt.commands.ablation.study_rows import StudyRow
from lightning_xt.system.messages import UserError


@pytest.mark.parametrize(
    ("degrees", "ninety", "ninety_five", "ninety_nine"),
    [(1, 6.314, 12.706, 63.657), (2, 2.920, 4.303, 9.925), (4, 2.132, 2.776, 4.604), (9, 1.833, 2.262, 3.250),
     (30, 1.697, 2.042, 2.750), (120, 1.658, 1.980, 2.617), (1e6, 1.645, 1.960, 2.576)],
)  # fmt: skip
def test_quantiles_are_those_of_tables(degrees, ninety, ninety_five, ninety_nine):
    found = [find_quantile(confidence, degrees) for confidence in (0.90, 0.95, 0.99)]
    assert found == pytest.approx([ninety, ninety_five, ninety_nine], abs=6e-4)


@pytest.mark.parametrize("t", [0.0, 0.1, 1.0, 3.7, 40.0, 1e6])
def test_p_values_have_the_closed_forms_of_one_and_two_degrees(t):
    assert find_p_value(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), rel=1e-9, abs=1e-15)
    assert find_p_value(-t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-9, abs=1e-12)
    # Many degrees: the normal distribution.
    assert find_p_value(t, 1e6) == pytest.approx(math.erfc(t / math.sqrt(2)), rel=1e-4, abs=1e-12)


def integrate(t, degrees, parts=20_000):
    """Integrate the density from t on by Simpson's rule, where t = sqrt(degrees) tan(angle)."""
    start = math.atan(abs(t) / math.sqrt(degrees))
    width = (math.pi / 2 - start) / parts
    weights = [1 if k in (0, parts) else 4 if k % 2 else 2 for k in range(parts + 1)]
    heights = [max(0.0, math.cos(start + k * width)) ** (degrees - 1) for k in range(parts + 1)]
    area = width / 3 * sum(w * h for w, h in zip(weights, heights, strict=True))
    return 2 * math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(math.pi) * area


@pytest.mark.parametrize(("t", "degrees"), [(0.3, 2.7), (1.9, 3.34), (2.5, 25.0), (7.0, 11.6), (12.0, 4.2)])
def test_p_values_are_the_integral_of_the_density(t, degrees):
    assert find_p_value(t, degrees) == pytest.approx(integrate(t, degrees), rel=1e-8)


def test_the_beta_function_of_whole_numbers_is_a_sum_of_binomials():
    for x, a, b in ((0.2, 2, 5), (0.7, 3, 4), (0.95, 6, 2)):
        n = a + b - 1
        binomial = sum(math.comb(n, k) * x**k * (1 - x) ** (n - k) for k in range(a, n + 1))
        assert regularized_beta(x, a, b) == pytest.approx(binomial, rel=1e-13)
    assert (regularized_beta(0.0, 2, 3), regularized_beta(1.0, 2, 3)) == (0.0, 1.0)
    assert find_p_value(math.inf, 3) == 0.0


FIRST = [27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4]
SECOND = [27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 20.5, 24.4]


def test_welchs_test_of_a_published_example():
    """Equal sizes, variances 7.9 and 3.8: t = -2.46, 25 degrees, p = 0.021."""
    found = compare_means(FIRST, SECOND)
    t = found.value / found.error
    assert (round(t, 2), round(found.degrees, 1), round(found.p, 3)) == (-2.46, 25.0, 0.021)
    assert found.value == pytest.approx(sum(FIRST) / 15 - sum(SECOND) / 15)
    # The interval ends at 0 where p is 0.05.
    assert found.margin == pytest.approx(found.error * 2.060, rel=2e-3)


def test_repeats_that_agree_and_single_ones():
    assert compare_means([1.0], [1.0, 2.0]) is None
    same, other = compare_means([1.0, 1.0], [1.0, 1.0, 1.0]), compare_means([1.0, 1.0], [2.0, 2.0])
    assert (same.p, same.margin) == (1.0, 0.0) and (other.p, other.value) == (0.0, -1.0)
    alone = average([3.5])
    assert (alone.value, alone.margin, alone.deviation, alone.repeats) == (3.5, None, None, 1)
    # 4.303 times the deviation, 1, over the root of 3.
    three = average([1.0, 2.0, 3.0])
    assert (three.value, three.deviation) == (2.0, 1.0) and three.margin == pytest.approx(4.3027 / 3**0.5, rel=1e-4)


def test_a_known_spread_makes_a_normal_test():
    """A standard deviation of 3: the error of a difference of means of 3 and 2 is 3 * sqrt(1 / 3 + 1 / 2)."""
    found = compare_means([1.0, 2.0, 3.0], [4.0, 6.0], Spread(9.0, math.inf))
    z = 3 / (9 * 5 / 6) ** 0.5
    assert (found.value, found.p) == (-3.0, pytest.approx(math.erfc(z / 2**0.5), rel=1e-12))
    assert found.margin == pytest.approx(1.959964 * 3 / z, rel=1e-6)


def test_a_test_has_at_most_the_degrees_of_the_groups_that_the_spread_is_estimated_from():
    found = compare_means([1.0, 2.0, 3.0], [4.0, 6.0], Spread(9.0, math.inf, 3))
    z = 3 / (9 * 5 / 6) ** 0.5
    assert (found.degrees, found.p) == (3, pytest.approx(integrate(z, 3), rel=1e-8))
    # Of few degrees anyway.
    assert compare_means([1.0, 2.0, 3.0], [4.0, 6.0], Spread(9.0, 0.5, 30)).degrees < 5


def test_a_prior_counts_by_its_degrees():
    assert moderate(Spread(4.0, 2), Spread(1.0, 6)) == Spread(14 / 8, 8)
    assert (
        moderate(Spread(4.0, 2), None) == Spread(4.0, 2)
        and moderate(Spread(4.0, 2), Spread(1.0, math.inf)).variance == 1
    )
    assert find_spread([1.0, 3.0]) == Spread(2.0, 1)


def test_a_weighted_sum_by_hand():
    """The interaction 10 - 6 - 5 + 2 = 1; variances 2 of four groups of 2, 4, 2 and 2 repeats."""
    groups = [(1.0, [9.0, 11.0]), (-1.0, [5.0, 5.0, 7.0, 7.0]), (-1.0, [4.0, 6.0]), (1.0, [1.0, 3.0])]
    found = compute_contrast(groups)
    parts = [1.0, 1 / 3, 1.0, 1.0]
    degrees = sum(parts) ** 2 / (1 + (1 / 3) ** 2 / 3 + 1 + 1)
    assert (found.value, found.degrees) == (1.0, pytest.approx(degrees))
    assert found.p == pytest.approx(integrate(1 / sum(parts) ** 0.5, degrees), rel=1e-8)
    assert compute_contrast([*groups, (1.0, [0.0])]) is None


def test_a_shared_spread_is_pooled_where_groups_agree_and_wide_where_they_do_not():
    alike = [Spread(2.0, 2), Spread(1.0, 2), Spread(1.5, 10)]
    assert share_spread(alike) == Spread(pytest.approx(21 / 14), math.inf, 14)
    assert share_spread([Spread(0.0, 2)]) is None
    # Draws of 5 * F(4, 6): sums of exponentials are chi-squared with even degrees.
    random = Random(0)
    ratios = [sum(random.expovariate(1) for _ in range(2)) / 2 / (sum(random.expovariate(1) for _ in range(3)) / 3)
              for _ in range(2000)]  # fmt: skip
    found = share_spread([Spread(5 * each, 4) for each in ratios])
    assert 5 < found.degrees < 7 and 4.6 < found.variance < 5.4


def test_rows_are_better_by_both_tests_only():
    """Welch's test alone is fooled by repeats that agree by chance, where those of all others do not."""
    random = Random(1)
    values = {name: [random.gauss(0, 1) for _ in range(3)] for name in map(str, range(20))}
    values |= {"alike": [-1.9, -1.9001, -1.9002], "far": [-9.0, -9.1, -9.2], "likely": [-4.5, -3.0, -6.0]}
    base = StudyRow(name="base", values=[random.gauss(0, 1) for _ in range(10)])
    rows = [
        StudyRow(name=name, values=each, mean=average(each), difference=compare_means(each, base.values))
        for name, each in values.items()
    ]
    found = {row.name: row for row in judge_rows(base, rows)}
    assert found["alike"].p < 0.05 <= found["alike"].p_shared and found["likely"].p_shared < 0.05 <= found["likely"].p
    assert {row.verdict for row in found.values()} == {"within the noise", "better", "likely better"}
    assert [found[name].verdict for name in ("alike", "far", "likely")] == [
        "within the noise", "better", "likely better"
    ]  # fmt: skip


def test_holms_correction_by_hand():
    assert correct_for_number([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert correct_for_number([0.6, 0.7]) == [1.0, 1.0]
    assert correct_for_number([]) == []


def test_budgets():
    costs = {"bytes_per_step": 1024.0, "flops_per_step": None, "seconds_per_step": 0.5}
    assert Budget.parse("bytes=4M").count_steps(costs) == 3906
    assert Budget.parse("bytes=1.5k").count_steps(costs) == 1
    assert Budget.parse("seconds=2.75").count_steps(costs) == 5
    assert Budget.parse("steps=7").count_steps({}) == 7
    assert Budget.parse("steps=2.03k").count_steps({}) == 2030
    assert Budget.parse("bytes=4.1M").count_steps({"bytes_per_step": 100_000.0}) == 41
    assert Budget.parse("flops=3e14").count_steps({"flops_per_step": 1e11}) == 3000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4M", "is not a budget; give bytes=4M"),
        ("bites=4M", "is not a budget"),
        ("bytes=-1", "is not a budget"),
        ("bytes=0", "pays for no step; give more"),
        ("bytes=1000", "pays for no step, which takes 1,024 bytes; give more"),
        ("flops=1T", "the flops of a step of this model on these data are not known"),
        ("steps=0.5", "pays for no step, which takes 1 steps; give more"),
    ],
)
def test_a_budget_that_is_not_a_step_is_refused(text, message):
    with pytest.raises(UserError, match="ablate --budget") as caught:
        Budget.parse(text).count_steps({"bytes_per_step": 1024.0, "flops_per_step": None})
    assert message in str(caught.value)
