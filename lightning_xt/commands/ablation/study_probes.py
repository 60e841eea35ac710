"""Columns of the probes in the table of an ablation."""

from collections.abc import Mapping
from dataclasses import dataclass

from lightning_xt.commands.ablation.mean_tests import (
    SIGNIFICANT,
    Mean,
    average,
    compare_means,
    correct_for_number,
    find_spread,
)
from lightning_xt.commands.ablation.shared_spread import share_spread
from lightning_xt.commands.ablation.study_folder import StudyFolder
from lightning_xt.commands.ablation.study_plan import BASE, Run, StudyPlan

LOWER = ("loss", "bits_per_byte", "perplexity")
"""Ends of the names of metrics of which less is better."""


@dataclass(frozen=True)
class ProbeCell:
    """Result of a variant on a probe.

    Args:
        mean: mean of its repeats. None = there is none.
        p: p-value of no difference from the base with the spread that variants share, corrected. None = not tested.
        is_better: whether the mean is better than the base's.
        error: why a run failed. None = none has.
    """

    mean: Mean | None = None
    p: float | None = None
    is_better: bool = False
    error: str | None = None

    def __str__(self) -> str:
        if self.mean is None:
            return "-" if self.error is None else "failed"
        mark = "" if self.p is None or self.p >= SIGNIFICANT else " +" if self.is_better else " -"
        return f"{self.mean.value:.3f}{mark}"


def build_cells(plan: StudyPlan, folder: StudyFolder, probe: str) -> dict[str, ProbeCell]:
    """Return the cell of each variant on a probe, the base's included."""
    names = [BASE, *(each.name for each in plan.variants)]
    values: dict[str, list[float]] = {}
    errors: dict[str, str] = {}
    for name in names:
        found = [folder.read_result(Run(name, seed, "probe", probe=probe).key) for seed in range(plan.seeds)]
        values[name] = [each["metrics"][plan.probe_metric] for each in found if each and "error" not in each]
        failed = [str(each["error"]) for each in found if each and "error" in each]
        errors |= {name: failed[0]} if failed else {}
    whole = [name for name in names[1:] if name not in errors and len(values[name]) == plan.seeds]
    spread = share_spread([find_spread(values[name]) for name in names if len(values[name]) > 1])
    tests = {name: test for name in whole if (test := compare_means(values[name], values[BASE], spread)) is not None}
    corrected = dict(zip(tests, correct_for_number([test.p for test in tests.values()]), strict=True))
    sign = -1 if plan.probe_metric.endswith(LOWER) else 1
    better = {name: sign * test.value > 0 for name, test in tests.items()}
    return {name: _make_cell(values[name], corrected, better, errors, name) for name in names}


def _make_cell(
    values: list[float], p: Mapping[str, float], better: Mapping[str, bool], errors: Mapping[str, str], name: str
) -> ProbeCell:
    mean = average(values) if values and name not in errors else None
    return ProbeCell(mean, p.get(name), better.get(name, False), errors.get(name))
