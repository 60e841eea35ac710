"""Ablation: measures the speed of all variants, tunes their learning rates, and trains their repeats."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from lightning_xt.commands.ablation.child_process import RunError
from lightning_xt.commands.ablation.child_training import METRICS
from lightning_xt.commands.ablation.process_runner import BaseError, Job, Runner
from lightning_xt.commands.ablation.study_folder import StudyFolder
from lightning_xt.commands.ablation.study_plan import BASE, HALF, Run, StudyPlan, check_resumable
from lightning_xt.commands.ablation.study_results import StudyResults
from lightning_xt.system.messages import UserError
from lightning_xt.system.processor_names import name_processors
from lightning_xt.system.time_left import TimeLeft, format_seconds

Report = Callable[[str], None]
UNTRAINED = "ablate: the base cannot be trained"
MOST_NOISE = 3.0
"""Standard deviations of the base's repeats by which a run differs at most on another processor."""
TRIES = 2
"""Times that a failure which may pass is tried before it is kept."""


class Study:
    """Ablation in a folder, continued from what the folder has.

    Args:
        plan: the plan.
        folder: the folder.
        runner: trains the runs.
        report: prints a line of progress.
        on_result: called after each run.
    """

    def __init__(
        self,
        plan: StudyPlan,
        folder: StudyFolder,
        runner: Runner,
        report: Report,
        on_result: Callable[[StudyResults], object],
    ) -> None:
        self.plan, self.folder = plan, folder
        self._runner, self._report, self._on_result = runner, report, on_result
        self.results = StudyResults(plan, folder)

    def run(self) -> None:
        """Do what is left; UserError if the base cannot be trained, or the folder has another study."""
        self._read_earlier()
        costs = self.folder.read_speed(BASE) or self._measure(BASE)
        self.plan.budget.count_steps(costs)
        with self.folder.hold():
            # Again, for another process may have begun a study there meanwhile.
            earlier = self._read_earlier()
            if earlier is not None and earlier["code"] != self.plan.code:
                self._check_code()
            if self.folder.read_plan() != (plan := self.plan.to_plain()):
                self.folder.write_plan(plan)
            if self.folder.read_speed(BASE) is None:
                self.folder.write_speed(BASE, costs)
            self._measure_variants()
            self._report(self._describe_work())
            self._train(list(self.plan.list_tuning()))
            if (error := self.results.find_error(BASE)) is not None:
                raise UserError(f"{UNTRAINED}: {error}")
            self._train(list(self.plan.list_repeats()))
            probes = list(self.plan.list_probes())
            # First, for without a result of the base, which may lack the metric, the others would be of no use.
            self._train([run for run in probes if run.variant == BASE and run.seed == 0])
            self._train(probes)

    def _read_earlier(self) -> dict[str, Any] | None:
        """Return the plan of the study in the folder, None if there is none; UserError if it is not of this study."""
        earlier = self.folder.read_plan()
        if earlier is not None:
            check_resumable(self.plan, earlier, self.folder.option, self.folder.has_probed())
        return earlier

    def _check_code(self) -> None:
        """Train a run of the base again with the code of today; UserError if it ends elsewhere.

        It ends at the same bits if it was trained on this processor. Others round differently, so that one of theirs
        must be as close as runs with other seeds are.
        """
        runs = (*self.plan.list_repeats(), *self.plan.list_tuning(), *self.plan.list_probes())
        done = ((run, self.folder.read_result(run.key)) for run in runs if run.variant == BASE)
        finished = [(run, result) for run, result in done if result is not None and "error" not in result]
        if not finished:
            return
        here = name_processors()
        same = (each for each in finished if each[1].get("processor", here) == here)
        run, kept = next(same, finished[0])
        self._report(f"the code has changed since the study began: its run {run.key} is repeated")
        with closing(self._runner.train(self._list_jobs([run]))) as trained:
            ((_, result),) = trained
        if isinstance(result, RunError):
            raise UserError(f"{UNTRAINED}: {result}")
        self._check_data(run, result)
        before, found, metric = kept["metrics"], result["metrics"], self.results.find_metric(run)
        other = f"{self.folder.option} holds a study of other code, by which its run {run.key} ended at"
        if kept.get("processor", here) != here:
            noise = self.results.find_noise()
            if noise is None or not abs(found[metric] - before[metric]) <= MOST_NOISE * noise:
                raise UserError(
                    f"{other} {metric} {before[metric]!r} on {kept['processor']}, and now {found[metric]!r} on {here}, "
                    "which is not known to be noise; continue it there, or give another --out"
                )
            return
        # NaN does not equal itself.
        for name in sorted(before, key=lambda name: name != metric):
            if repr(found.get(name)) != repr(before[name]):
                raise UserError(f"{other} {name} {before[name]!r}, and now {found.get(name)!r}; give another --out")

    def _describe_work(self) -> str:
        """Describe how much is left to train, without validations and probes."""
        runs = [run for run in (*self.plan.list_tuning(), *self.plan.list_repeats()) if self._is_left(run)]
        base = self.results.cost(BASE)["seconds_per_step"]
        seconds = 0.0
        for run in runs:
            steps = (self.results.count_steps(run.variant) or 0) / (HALF if run.purpose == "half" else 1)
            seconds += steps * self.results.cost(run.variant)["seconds_per_step"]
        return f"{len(runs)} runs are left, {format_seconds(seconds)} of training, of the base {base:.4f} s a step"

    def _is_left(self, run: Run) -> bool:
        if not self.results.can_train(run.variant):
            return False
        result = self.folder.read_result(run.key)
        if result is None or "error" in result:
            return result is None
        # A result of the base of another --probe_metric, or of another learning rate, whose tuning was tried again.
        rate = self._choose_rate(run)
        is_another = run.purpose != "tuning" and result.get("rate", rate) != rate
        return is_another or not self.results.has_metric(run, result)

    def _choose_rate(self, run: Run) -> float | None:
        """Return the learning rate of a run; None = that of its config."""
        if run.probe is not None:
            return None
        return self.results.choose_rate(run.variant) if run.rate is None else run.rate

    def _measure_variants(self) -> None:
        names = [each.name for each in self.plan.variants if each.error is None]
        left = [name for name in names if self.folder.read_speed(name) is None]
        for number, name in enumerate(left, 1 + len(names) - len(left)):
            costs = self._measure(name)
            self._check_same_data(name, costs)
            found = costs.get("error") or f"{costs['time_ratio']:.2f} times the base's time"
            self._report(f"speed {number}/{len(names)}  {name}: {found}")
            self.folder.write_speed(name, costs)

    def _measure(self, name: str) -> dict[str, Any]:
        """Return what a step of a variant costs, or its failure; UserError if the base fails."""
        for attempt in range(1, TRIES + 1):
            try:
                return self._runner.measure(self._list_options(BASE), self._list_options(name))
            except RunError as error:
                failure = error
                if attempt < TRIES and (failure.may_pass or isinstance(failure, BaseError)):
                    self._report(f"speed of {name}: {failure}; it is measured again")
                    continue
                break
        if name == BASE or isinstance(failure, BaseError):
            raise UserError(f"{UNTRAINED}: {failure}") from failure
        return describe_failure(failure, self.folder.name_speed(name))

    def _train(self, runs: Sequence[Run]) -> None:
        """Train those of some runs that are not done, in their order; failures that may pass again after the others."""
        runs = [run for run in runs if self.results.can_train(run.variant)]
        for attempt in range(1, TRIES + 1):
            left = [run for run in runs if self._is_left(run)]
            done, time_left = len(runs) - len(left), TimeLeft(len(left))
            with closing(self._runner.train(self._list_jobs(left))) as finished:
                for run, result in finished:
                    if attempt < TRIES and isinstance(result, RunError) and result.may_pass:
                        self._report(f"{run.key}: {result}; it is trained again after the others")
                        continue
                    done += 1
                    kept = self._keep(run, result)
                    waiting = format_seconds(time_left.estimate(done - len(runs) + len(left)) or 0)
                    outcome = kept.get("error") or self.results.describe(run, kept)
                    self._report(f"{done}/{len(runs)}, {waiting} left  {run.key}: {outcome}")
                    self._on_result(self.results)

    def _keep(self, run: Run, result: dict[str, Any] | RunError) -> dict[str, Any]:
        """Write a result or a failure, and return it; UserError without writing if the base's rows need the run."""
        if not isinstance(result, RunError):
            self._check_data(run, result)
            if run.variant != BASE and not self.results.has_metric(run, result):
                return self._write(run, describe_failure(RunError(f"it has no {self.results.find_metric(run)}")))
            return self._write(run, {**result, "rate": self._choose_rate(run)})
        # A learning rate may be too high for the base too.
        if run.variant == BASE and (run.purpose != "tuning" or result.may_pass):
            raise UserError(f"{UNTRAINED}{'' if run.probe is None else f' on {run.probe}'}: {result}")
        return self._write(run, describe_failure(result, self.folder.name_result(run.key)))

    def _write(self, run: Run, result: dict[str, Any]) -> dict[str, Any]:
        kept = {**result, "code": self.plan.code, "processor": name_processors()}
        self.folder.write_result(run.key, kept)
        return kept

    def _list_jobs(self, runs: Iterable[Run]) -> Iterator[Job]:
        for run in runs:
            for path, text in (*self.plan.base, *self.plan.probes):
                if Path(path).read_text(encoding="utf-8") != text:
                    raise UserError(f"ablate: {path} has changed since the study began; restore it, and run again")
            steps = self.results.count_steps(run.variant)
            if steps is None:
                continue
            steps = max(1, steps // HALF) if run.purpose == "half" else steps
            length = [] if run.probe is not None else [f"--trainer.max_steps={steps}"]
            try:
                rate = self._list_rate_options(run)
            except RunError as failure:
                self._write(run, describe_failure(failure))
                continue
            fixed = [*length, f"--seed_everything={run.seed}", f"--data.seed={run.seed}"]
            wanted = METRICS if run.probe is None else (self.plan.probe_metric,)
            yield Job(run, [*self._list_options(run.variant, run.probe), *rate, *fixed], wanted)

    def _list_options(self, name: str, probe: str | None = None) -> list[str]:
        """Return the options of `fit` of a variant, besides the length and the seeds of a run.

        A probe has its own base, to which options of the base do not belong.
        """
        files = self.plan.base if probe is None else [each for each in self.plan.probes if each.name == probe]
        args = [arg for path, _ in files for arg in ("-c", path)] + (list(self.plan.options) if probe is None else [])
        text = self._find_overlay(name)
        # Before the overlays, which change them.
        return args if text is None else [*args, "-c", str(self.folder.write_overlay(name, text))]

    def _list_rate_options(self, run: Run) -> list[str]:
        """Return the options of a run's learning rate; RunError if there is nothing to tune."""
        rate = self._choose_rate(run)
        if rate is None:
            return []
        costs = self.folder.read_speed(run.variant) or {}
        return list_rate_options(costs.get("optimizer") or {}, rate)

    def _check_same_data(self, name: str, costs: Mapping[str, Any]) -> None:
        """Raise a UserError if the data have changed before a variant is added to a study."""
        base, text = self.folder.read_speed(BASE) or {}, self._find_overlay(name)
        if "error" not in costs and costs["data"] != base["data"] and "data" not in yaml.safe_load(text or "{}"):
            raise UserError(
                f"ablate: the data have changed since the study began (their hash is {str(costs['data'])[:16]}, not "
                f"{str(base['data'])[:16]}); restore them, or give another --out"
            )

    def _find_overlay(self, name: str) -> str | None:
        return next((each.text for each in self.plan.variants if each.name == name), None)

    def _check_data(self, run: Run, result: Mapping[str, Any]) -> None:
        """Raise a UserError if the data of a study have changed since it began; a variant may have its own."""
        measured = (self.folder.read_speed(run.variant) or {}).get("data")
        if run.probe is None and measured != result["data"]:
            raise UserError(
                f"ablate: the data of {run.variant} have changed since the study began (their hash is "
                f"{str(result['data'])[:16]}, not {str(measured)[:16]}); restore them, or give another --out"
            )


def list_rate_options(optimizer: Mapping[str, Any], rate: float) -> list[str]:
    """Return the options of a learning rate; further rates of the optimizer keep their proportion to it.

    Args:
        optimizer: the optimizer as a config spells it.
        rate: the learning rate.

    Raises:
        RunError: the optimizer has no learning rate.
    """
    options = optimizer.get("init_args") or {}
    given = options.get("lr")
    if not isinstance(given, int | float) or not given > 0:
        raise RunError("its optimizer has no learning rate lr above 0, which --tune lr=... would set")
    rates = {name: value for name, value in options.items() if name.endswith("_lr") and isinstance(value, int | float)}
    scaled = {name: float(f"{value * rate / given:.6g}") for name, value in rates.items() if math.isfinite(value)}
    return [f"--model.optimizer.{name}={value!r}" for name, value in ({"lr": rate} | scaled).items()]


def describe_failure(failure: RunError, file: str | None = None) -> dict[str, Any]:
    """Return what is kept of a failed run.

    Args:
        failure: the failure.
        file: name in the folder of the study of the file that keeps it. None = another try would fail too.
    """
    way_out = "" if file is None else f"; remove {file} to try again"
    return {"error": f"{failure}{way_out}", "output": failure.output}
