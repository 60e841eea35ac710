from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch.profiler import ProfilerActivity, profile, schedule

from lightning_xt.system.files import replace_file
from lightning_xt.system.option_checks import check_option
from lightning_xt.training.callbacks.run_folder import find_run_folder
from lightning_xt.training.step_boundaries import at_step_boundary

TABLE, TRACE = "profile.txt", "trace.json.gz"


class StepProfiler(Callback):
    """Profiler of a few optimizer steps: a table of the operations that take the most time, and a trace.

    The first process prints the table and writes `profile.txt` and `trace.json.gz` into the run's folder; a trace is
    opened at https://ui.perfetto.dev. The times include the work of the profiler itself.

    Args:
        skip: optimizer steps of this command before the first that is profiled, at least 1: first steps allocate, and
            may compile.
        steps: optimizer steps that are profiled.
        rows: operations in the table.
        stop: end the run afterwards.
    """

    def __init__(self, skip: int = 5, steps: int = 3, rows: int = 15, stop: bool = False) -> None:
        for name, value in (("skip", skip), ("steps", steps), ("rows", rows)):
            check_option("trainer.callbacks: StepProfiler", name, value, least=1)
        self.skip, self.steps, self.rows, self.stop = skip, steps, rows, stop
        self._profile: Any = None
        self._done = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._done, self._profile = 0, None
        if not trainer.is_global_zero:
            return
        activities = [ProfilerActivity.CPU]
        if trainer.strategy.root_device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        # A step before them warms the profiler up.
        phases = schedule(wait=self.skip - 1, warmup=1, active=self.steps, repeat=1)
        self._profile = profile(activities=activities, schedule=phases, acc_events=True)
        self._profile.start()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if self._done >= self.skip + self.steps or not at_step_boundary(trainer):
            return
        self._done += 1
        if self._profile is not None:
            self._profile.step()
        if self._done == self.skip + self.steps:
            self._report(trainer)
            trainer.should_stop = trainer.should_stop or self.stop

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._done < self.skip + self.steps:
            self._close()
            rank_zero_info(
                f"StepProfiler: the run ended after {self._done} steps, before the {self.skip + self.steps} of skip "
                "and steps; nothing was profiled"
            )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> Any:
        """Stop the profiler, and return it; None if it has stopped."""
        found, self._profile = self._profile, None
        if found is not None:
            found.stop()
        return found

    def _report(self, trainer: Trainer) -> None:
        """Print the table, and write it and the trace into the run's folder."""
        folder = find_run_folder(trainer)
        if (found := self._close()) is None:
            return
        text = self._format_table(found)
        print(text, flush=True)
        if folder is not None:
            with replace_file(folder / TABLE) as out:
                out.write(f"{text}\n".encode())
            found.export_chrome_trace(str(folder / TRACE))
            print(f"trace:  {folder / TRACE} (open it at https://ui.perfetto.dev)", flush=True)

    def _format_table(self, found: Any) -> str:
        """Return the operations that take the most time themselves, a line each."""
        kind = "device" if ProfilerActivity.CUDA in found.activities else "cpu"
        times = {each.key: (getattr(each, f"self_{kind}_time_total"), each.count) for each in found.key_averages()}
        # The profiler's name for what is in no operation.
        python = times.pop("ProfilerStep*", None)
        total = sum(time for time, _ in times.values())
        if kind == "cpu" and python is not None:
            times["(Python)"], total = python, total + python[0]
        where = "on the GPU" if kind == "device" else "on the CPU"
        lines = [f"profile: {self.steps} steps, each {total / self.steps / 1e3:.1f} ms {where}, by operation"]
        lines.append(f"{'ms a step':>11}{'%':>7}{'calls':>7}  operation")
        for name, (time, count) in sorted(times.items(), key=lambda each: -each[1][0])[: self.rows]:
            calls = round(count / self.steps)
            lines.append(f"{time / self.steps / 1e3:11.2f}{100 * time / max(total, 1):7.1f}{calls:7}  {name}")
        return "\n".join(lines)
