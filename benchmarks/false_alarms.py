"""False alarms of `ablate` among rows that do nothing. Usage: python benchmarks/false_alarms.py.

Studies are simulated: normal values of a base and of rows that do nothing, and verdicts by the command's own
functions. A row of the output is a setting: the fractions of its studies in which any row is called better or worse,
at least likely so, and by Welch's test alone; and of the rows with a real effect of three standard deviations of a run,
those that are found by the first two. Nothing is trained.
"""

import argparse
import math
from random import Random

from common import report, say

from lightning_xt.commands.ablation.mean_tests import SIGNIFICANT, average, compare_means
from lightning_xt.commands.ablation.row_verdicts import judge_rows
from lightning_xt.commands.ablation.study_rows import StudyRow

EFFECT = 3.0
"""Effect of the rows that do something, in standard deviations of a run."""
EFFECTIVE = 5
"""Most rows of a study that do something, where effects are to be found."""
SETTINGS = {
    "80_rows": {},
    "80_rows_2_seeds": {"seeds": 2},
    "80_rows_5_seeds": {"seeds": 5},
    "10_rows": {"rows": 10},
    "3_rows": {"rows": 3},
    "1_row_2_seeds_floor_2": {"rows": 1, "seeds": 2, "floor": 2},
    "rows_spread_twice_as_much": {"spread": 2.0},
    "rows_spread_half_as_much": {"spread": 0.5},
    "spreads_differ_1.5_times": {"differ": math.log(1.5)},
    "spreads_differ_2_times": {"differ": math.log(2.0)},
    "one_of_twenty_spreads_4_times": {"wild": 4.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=500, help="simulated studies of a setting")
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS), help="settings")
    options = parser.parse_args()
    rows = {}
    for name in options.settings:
        rows[name] = measure(options.studies, **SETTINGS[name])
        say(f"{name}: {rows[name]}")
    report(rows, "cpu", ())


def measure(studies: int, **setting: float) -> dict[str, float]:
    """Return the fractions of studies with a false alarm, and of real effects that are found."""
    random, counts = Random(0), {"better_or_worse": 0, "likely": 0, "by_welch_alone": 0}
    for _ in range(studies):
        rows = simulate(random, **setting)
        sure = any(row.verdict in ("better", "worse") for row in rows)
        counts["better_or_worse"] += sure
        counts["likely"] += sure or any(row.verdict.startswith("likely") for row in rows)
        counts["by_welch_alone"] += any(row.p is not None and row.p < SIGNIFICANT for row in rows)
    found = {f"false_alarm_{name}": round(count / studies, 3) for name, count in counts.items()}
    effective = min(EFFECTIVE, int(setting.get("rows", EFFECTIVE)))
    effects = [
        row.verdict
        for _ in range(studies // 10)
        for row in simulate(random, effective=effective, **setting)[:effective]
    ]
    found["found_better"] = round(effects.count("better") / len(effects), 3)
    found["found_likely"] = round((effects.count("better") + effects.count("likely better")) / len(effects), 3)
    return found


def simulate(
    random: Random,
    rows: int = 80,
    seeds: int = 3,
    floor: int = 10,
    spread: float = 1.0,
    differ: float = 0.0,
    wild: float = 1.0,
    effective: int = 0,
) -> list[StudyRow]:
    """Return the judged rows of a study, those with an effect first.

    Args:
        random: draws.
        rows: rows besides the base.
        seeds: repeats of a row.
        floor: repeats of the base.
        spread: standard deviation of a row's runs in multiples of the base's.
        differ: standard deviation of the logarithm of the rows' spreads.
        wild: spread of one row of twenty, in multiples of the others'.
        effective: rows with an effect.
    """
    base = make_row("base", [random.gauss(0, 1) for _ in range(floor)])
    found = []
    for number in range(rows):
        own = spread * math.exp(random.gauss(0, differ)) * (wild if number % 20 == 19 else 1.0)
        values = [random.gauss(-EFFECT if number < effective else 0, own) for _ in range(seeds)]
        found.append(make_row(str(number), values, base))
    return judge_rows(base, found)


def make_row(name: str, values: list[float], base: StudyRow | None = None) -> StudyRow:
    difference = None if base is None else compare_means(values, base.values)
    return StudyRow(name=name, values=values, mean=average(values), difference=difference)


if __name__ == "__main__":
    main()
