"""Description of an ablation: how its table was made, and how to read it."""

from collections.abc import Iterator

from lightning_xt.commands.ablation.budget import KINDS
from lightning_xt.commands.ablation.mean_tests import SIGNIFICANT
from lightning_xt.commands.ablation.study_results import StudyResults
from lightning_xt.commands.ablation.study_rows import StudyRow


def describe_study(results: StudyResults, rows: list[StudyRow]) -> list[str]:
    """Describe in sentences how the table was made, and how to read it."""
    plan = results.plan
    versions = ", ".join(f"{name} {version}" for name, version in plan.versions.items())
    return [
        *_describe_runs(results, rows[0]),
        *_describe_tests(results, rows),
        *_describe_costs(results, rows[0]),
        *_describe_choices(results),
        f"{versions}; threads of a run: {plan.threads}.",
        *_describe_processors(results),
        *_describe_code(results),
    ]


def has_column(results: StudyResults, kind: str) -> bool:
    """Return whether a kind of budget has a separate column; bytes pay for equal steps where batches are equal."""
    if kind == results.plan.budget.kind:
        return False
    return kind == "seconds" or results.plan.budget.kind in KINDS.keys() - {"bytes", "steps"}


def _describe_runs(results: StudyResults, base: StudyRow) -> Iterator[str]:
    plan = results.plan
    names = " and ".join(each.path for each in plan.base)
    options = f" {' '.join(plan.options)}" if plan.options else ""
    yield (
        f"Base: {names}{options}. Budget of each run: {plan.budget.text}, {base.steps or 0:,} steps of the base, with "
        "the schedule fitted to the steps."
    )
    seeds = f"{plan.seeds} seeds with its 95 % interval" if plan.seeds > 1 else "one seed"
    yield (
        f"Quality is {results.metric} of the whole validation split after the last step, the mean of {seeds}; lower is "
        "better. A seed is that of the weights and of the order of the data."
    )


def _describe_tests(results: StudyResults, rows: list[StudyRow]) -> Iterator[str]:
    mean, tested = rows[0].mean, sum(row.p is not None for row in rows)
    if mean is not None and mean.deviation is not None:
        yield (
            f"Noise: {mean.repeats} runs of the base, which differ in the seed only, have a standard deviation of "
            f"{mean.deviation:.4f}."
        )
    if results.plan.seeds < 2:
        yield "With one seed no interval is claimed, and no row is said to be better or worse."
    elif tested:
        yield (
            "p is Welch's, by the spread of the row's own repeats; p with shared spread takes that of the other rows "
            f"into account. Both are corrected for the number of rows, {tested}, by Holm's method. A row is better or "
            f"worse if both are below {SIGNIFICANT}, likely so if only the second is, and otherwise within the noise."
        )
    if any(row.interaction is not None for row in rows):
        yield (
            "Interaction: a combination's difference from the base beyond the sum of its parts' differences; below 0 "
            f"it is better than they promise. One marked * has a p with shared spread below {SIGNIFICANT}, corrected "
            "for the number of combinations."
        )


def _describe_costs(results: StudyResults, base: StudyRow) -> Iterator[str]:
    others = [kind for kind in ("seconds", "bytes") if has_column(results, kind)]
    slope, ratios = results.find_slope(), base.costs.get("time_ratios")
    if slope is not None:
        yield (
            f"By {' and by '.join(others)}: an estimate for as many as the base is trained for. The metric is taken to "
            "fall with the logarithm of the steps as the base's does between half of its steps and all "
            f"({slope:.4f} when it grows by 1). To measure, give --budget {others[0]}=..."
        )
    if ratios:
        yield (
            "Time, parameters, memory and FLOPs of a step are multiples of the base's. Time was measured in turns with "
            f"the base, apart from the runs; the base against itself gave {min(ratios):.2f} to {max(ratios):.2f}. "
            "Memory is that of weights, optimizer and the most that a step allocates."
        )


def _describe_choices(results: StudyResults) -> Iterator[str]:
    plan = results.plan
    if plan.rates:
        rates = ", ".join(f"{rate:g}" for rate in plan.rates)
        yield (
            f"The learning rate of each row is the best of {rates}, by one run of each at the whole budget on another "
            "seed; one marked * is at an end of these."
        )
    else:
        yield "The learning rate is that of the base, or of the overlay if it sets one; none was tuned."
    if plan.probes:
        yield (
            f"Probes: {plan.probe_metric} of the models of {', '.join(each.path for each in plan.probes)}, the mean of "
            f"the seeds. + is better than the base and - worse, where p with shared spread is below {SIGNIFICANT}, "
            "corrected for the number of rows."
        )


def _describe_processors(results: StudyResults) -> Iterator[str]:
    if names := results.list_processors():
        several = "" if len(names) == 1 else ", which round differently: a run repeated on another ends at other bits"
        yield f"Trained on {' and on '.join(names)}{several}."


def _describe_code(results: StudyResults) -> Iterator[str]:
    if mixed := results.list_mixed():
        yield (
            f"The code changed within {len(mixed)} rows, such as {mixed[0]}: a run of the base was trained again and "
            "ended at the same bits, or on another processor within its noise; the rows were not (runs.csv has a hash "
            "of the code of each run)."
        )
