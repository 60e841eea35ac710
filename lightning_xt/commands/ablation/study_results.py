"""Results of an ablation so far, and the rows of its table."""

import math
from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

from lightning_xt.commands.ablation.child_training import METRICS
from lightning_xt.commands.ablation.mean_tests import average, compare_means
from lightning_xt.commands.ablation.row_verdicts import judge_rows
from lightning_xt.commands.ablation.study_folder import StudyFolder
from lightning_xt.commands.ablation.study_plan import BASE, HALF, TUNING_SEED, Run, StudyPlan, Variant
from lightning_xt.commands.ablation.study_probes import build_cells
from lightning_xt.commands.ablation.study_rows import RATIOS, SAME, StudyRow
from lightning_xt.system.messages import UserError


class StudyResults:
    """Results that the folder of an ablation has.

    Args:
        plan: the plan.
        folder: the folder.
    """

    def __init__(self, plan: StudyPlan, folder: StudyFolder) -> None:
        self.plan, self.folder = plan, folder
        self._metric: str | None = None

    @property
    def metric(self) -> str:
        """Metric by which runs are compared."""
        if self._metric is None:
            runs = (*self.plan.list_tuning(), *self.plan.list_repeats())
            done = (self.folder.read_result(run.key) for run in runs if run.variant == BASE)
            found = (result["metrics"] for result in done if result is not None and "error" not in result)
            # Known from the first result on.
            self._metric = next((name for metrics in found for name in METRICS if name in metrics), None)
        return self._metric or METRICS[0]

    def find_metric(self, run: Run) -> str:
        """Return the metric that a run is for."""
        return self.metric if run.probe is None else self.plan.probe_metric

    def has_metric(self, run: Run, result: Mapping[str, Any]) -> bool:
        """Return whether a result has the metric that the run is for, as far as that is known."""
        return self.find_metric(run) in result["metrics"] or (run.probe is None and self._metric is None)

    def list_processors(self) -> list[str]:
        """List the kinds of processors that trained the runs, the first one first."""
        runs = (*self.plan.list_tuning(), *self.plan.list_repeats(), *self.plan.list_probes())
        results = (self.folder.read_result(run.key) or {} for run in runs)
        return list(dict.fromkeys(result["processor"] for result in results if "processor" in result))

    def list_mixed(self) -> list[str]:
        """List the variants whose repeats were trained by different code."""
        found = []
        for name in (each.name for each in self.plan.variants):
            repeats = [self.folder.read_result(Run(name, seed).key) or {} for seed in range(self.plan.seeds)]
            if len({each["code"] for each in repeats if "code" in each}) > 1:
                found.append(name)
        return found

    def can_train(self, variant: str) -> bool:
        """Return whether a variant stands on the base, and its budget is a step."""
        return self.find_error(variant) is None

    def count_steps(self, variant: str) -> int | None:
        """Return the steps of a run of a variant. None = it cannot be trained."""
        if self.folder.read_speed(variant) is None or not self.can_train(variant):
            return None
        return self.plan.budget.count_steps(self.cost(variant))

    def find_error(self, variant: str) -> str | None:
        """Return why a variant cannot be trained; None if it can, as far as is known."""
        tried = [self.folder.read_result(run.key) for run in self._list_tuning(variant)]
        if tried and all(result is not None and "error" in result for result in tried):
            return f"no learning rate of --tune trains it: {(tried[0] or {})['error']}"
        costs = self.folder.read_speed(variant)
        if costs is None or "error" in costs:
            return None if costs is None else str(costs["error"])
        try:
            self.plan.budget.count_steps(self.cost(variant))
        except UserError as error:
            return str(error)
        return None

    def cost(self, variant: str) -> dict[str, Any]:
        """Return the costs of a step, its seconds as many as the base's at the time that was measured for both."""
        costs, base = (self.folder.read_speed(name) or {} for name in (variant, BASE))
        seconds = base["seconds_per_step"] * (1.0 if variant == BASE else costs["time_ratio"])
        return {**costs, "seconds_per_step": seconds}

    def choose_rate(self, variant: str) -> float | None:
        """Return the learning rate with the best result; None if all have failed, or there is nothing to tune."""
        tried = self.list_rates(variant)
        return min(tried, key=lambda rate: (tried[rate], rate), default=None)

    def list_rates(self, variant: str) -> dict[float, float]:
        """Return the metrics of the learning rates that were tried and have not failed."""
        found = {run.rate: self._read(run) for run in self._list_tuning(variant)}
        return {rate: value for rate, value in found.items() if rate is not None and value is not None}

    def _list_tuning(self, variant: str) -> list[Run]:
        return [Run(variant, TUNING_SEED, "tuning", rate) for rate in self.plan.rates]

    def find_noise(self) -> float | None:
        """Return the standard deviation of the base's repeats; None if there are fewer than two."""
        values = list(self.list_values(BASE).values())
        return average(values).deviation if values else None

    def list_values(self, variant: str, purpose: str = "repeat") -> dict[int, float]:
        """Return the metric of the repeats of a variant that are done, by their seeds."""
        found = {seed: self._read(Run(variant, seed, purpose)) for seed in range(self.plan.most_repeats)}
        return {seed: value for seed, value in found.items() if value is not None}

    def _read(self, run: Run) -> float | None:
        result = self.folder.read_result(run.key)
        return None if result is None or "error" in result else result["metrics"].get(self.metric)

    def describe(self, run: Run, result: Mapping[str, Any]) -> str:
        """Describe the result of a run in a few words."""
        metric = self.find_metric(run)
        return f"{metric} {result['metrics'][metric]:.4f}, {result['seconds']:.0f} s of training"

    def build_rows(self) -> list[StudyRow]:
        """Return the row of the base, then those of the variants, the best first; those without a result last."""
        base = self._build_row(Variant(BASE, ""))
        rows = judge_rows(base, [self._build_row(each) for each in self.plan.variants], self.plan.variants)
        cells = {each.name: build_cells(self.plan, self.folder, each.name) for each in self.plan.probes}
        base, *rows = (
            replace(row, probes={probe: found[row.name] for probe, found in cells.items()}) for row in (base, *rows)
        )
        return [base, *sorted(rows, key=lambda row: (row.mean is None, row.mean.value if row.mean else 0.0, row.name))]

    def _build_row(self, variant: Variant) -> StudyRow:
        name, costs = variant.name, self.folder.read_speed(variant.name) or {}
        error = variant.error or self.find_error(name) or self._find_failure(name)
        if error is not None or not costs:
            return StudyRow(
                name=name, summary=variant.summary, verdict=f"failed: {error}" if error else "not measured yet"
            )
        values = self.list_values(name)
        tried, rate = self.list_rates(name), self.choose_rate(name)
        row: dict[str, Any] = {
            "name": name,
            "summary": variant.summary,
            "values": list(values.values()),
            "seeds": list(values),
            "steps": self.count_steps(name),
            "rate": rate,
            "at_end": len(tried) > 1 and rate in (min(tried), max(tried)),
            "costs": self.cost(name),
            "ratios": dict.fromkeys(RATIOS, 1.0) if name == BASE else self._compare_costs(costs),
        }
        wanted = self.plan.most_repeats if name == BASE else self.plan.seeds
        if name != BASE and values and values.items() <= self.list_values(BASE).items():
            # Such as an overlay that chooses what the base has.
            row["verdict"] = SAME
        elif len(values) < wanted:
            row["verdict"] = f"not finished: {len(values)} of {wanted} runs"
        if values:
            row |= {"mean": average(row["values"]), **self._estimate(name, fmean(row["values"]))}
            if name != BASE:
                row["difference"] = compare_means(row["values"], list(self.list_values(BASE).values()))
        if name == BASE:
            row["verdict"] = row.get("verdict") or "the base"
        return StudyRow(**row)

    def _find_failure(self, variant: str) -> str | None:
        """Return why a repeat of a variant failed; None if none has."""
        results = ((seed, self.folder.read_result(Run(variant, seed).key)) for seed in range(self.plan.most_repeats))
        errors = (f"{result['error']} (seed {seed})" for seed, result in results if result and "error" in result)
        return next(errors, None)

    def _compare_costs(self, costs: Mapping[str, Any]) -> dict[str, float | None]:
        base = self.folder.read_speed(BASE) or {}
        names = {"parameters": "parameters", "memory": "memory", "flops": "flops_per_step"}
        ratios = {key: costs[name] / base[name] if costs[name] and base[name] else None for key, name in names.items()}
        return {"time": costs["time_ratio"], **ratios}

    def _estimate(self, variant: str, value: float) -> dict[str, float | None]:
        """Estimate the metric of a variant after as many seconds and bytes as the base is trained for.

        Near the budget the metric is taken to fall by the logarithm of the steps as fast as the base's does from half
        of its steps on, each run with its own whole schedule.
        """
        steps, base_steps, slope = self.count_steps(variant), self.count_steps(BASE), self.find_slope()
        costs, base = self.cost(variant), self.cost(BASE)
        found: dict[str, float | None] = {}
        for kind in ("seconds", "bytes"):
            name = f"{kind}_per_step"
            exact = variant == BASE or kind == self.plan.budget.kind
            if exact:
                found[f"by_{kind}"] = value
            elif steps and base_steps and costs[name] and base[name]:
                same = base_steps * base[name] / costs[name]
                is_close = abs(same / steps - 1) < 1e-9
                found[f"by_{kind}"] = (
                    value if is_close else None if slope is None else value + slope * math.log(steps / same)
                )
        return found

    def find_slope(self) -> float | None:
        """Return by how much the base's metric falls when the logarithm of its steps grows by 1; None if unknown."""
        half, whole, steps = self.list_values(BASE, "half"), self.list_values(BASE), self.count_steps(BASE)
        shared = half.keys() & whole.keys()
        if not shared or not steps or steps < HALF:
            return None
        fallen = fmean(half[seed] - whole[seed] for seed in sorted(shared))
        return fallen / math.log(steps / (steps // HALF))
