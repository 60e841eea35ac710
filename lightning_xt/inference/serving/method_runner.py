"""Jobs of decoding methods other than sampling, such as beam search, in turns with the steps of sampling."""

from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass

from lightning_xt.generation.eval_mode import eval_mode
from lightning_xt.generation.methods.base import CancellableRun, DecodingRun
from lightning_xt.inference.serving.generation_task import GenerationTask
from lightning_xt.inference.serving.job import Job
from lightning_xt.inference.serving.sampling_runner import fail_tasks
from lightning_xt.inference.serving.source_encoding import encode_tasks
from lightning_xt.inference.serving.work_limits import WorkLimits
from lightning_xt.inference.translation import Translator


@dataclass(eq=False)
class MethodRun:
    """Requests of jobs with equal settings that a method decodes together.

    Args:
        run: decodes them.
        sequences: task and sequence of each request, by the number of the request.
        rows: rows of its cache.
        modes: puts further models of the method, such as a draft, into evaluation mode.
    """

    run: DecodingRun
    sequences: dict[int, tuple[GenerationTask, int]]
    rows: int
    modes: ExitStack

    @property
    def tasks(self) -> list[GenerationTask]:
        """The tasks of its sequences."""
        return list(dict.fromkeys(task for task, _ in self.sequences.values()))

    @property
    def closed(self) -> bool:
        """True if all its jobs have ended."""
        return all(task.job.closed for task in self.tasks)


class MethodRunner:
    """Runs of decoding methods, one step of each in turn. Waiting jobs of equal settings that rank start together.

    Args:
        limits: limits of the decoding; runs have `rows` together.
        translator: encodes the sources of an encoder-decoder. None = a language model.
    """

    def __init__(self, limits: WorkLimits, translator: Translator | None = None) -> None:
        self._limits, self._translator = limits, translator
        self._waiting: deque[GenerationTask] = deque()
        self._runs: list[MethodRun] = []
        self._alone: set[GenerationTask] = set()
        """Tasks of a group that failed, which start again one by one."""

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._runs)

    def add(self, task: GenerationTask) -> None:
        """Queue a job."""
        self._waiting.append(task)

    def remove(self, job: Job) -> None:
        """Drop a job; a run ends with the last of its jobs, and drops the rows of others if it can."""
        self._waiting = deque(task for task in self._waiting if task.job is not job)
        self._alone = {task for task in self._alone if task.job is not job}
        for run in [run for run in self._runs if run.closed]:
            self._end(run)
        for run in self._runs:
            if isinstance(run.run, CancellableRun):
                for number in [number for number, (task, _) in run.sequences.items() if task.job is job]:
                    run.run.cancel(number)

    def advance(self) -> None:
        """Start the run of the first waiting job if there are rows, and run one step of each run."""
        self._start()
        for run in list(self._runs):
            try:
                tokens = run.run.advance()
            except Exception as error:
                self._end(run)
                self._retry_or_fail(run.tasks, error)
                continue
            for token in tokens:
                task, sequence = run.sequences[token.request]
                task.push(sequence, token)
            if not run.run.busy:
                for task in run.tasks:
                    task.end_run()
                self._end(run)

    def fail(self, error: Exception) -> None:
        """End all jobs with an error."""
        tasks = [*self._waiting, *(task for run in self._runs for task in run.tasks)]
        self._waiting.clear()
        for run in list(self._runs):
            self._end(run)
        fail_tasks(tasks, error)

    def _start(self) -> None:
        group = self._take_group()
        encode_tasks(self._translator, group)
        group = [task for task in group if not task.job.closed]
        if not group:
            return
        first = group[0]
        places = [(task, sequence) for task in group for sequence in range(len(task.requests))]
        requests = {number: task.requests[sequence] for number, (task, sequence) in enumerate(places)}
        method, model, modes = first.session.method, first.session.model, ExitStack()
        try:
            for each in method.list_models(model):
                modes.enter_context(eval_mode(each))
            run = method.start(model, requests, first.params)
        except Exception as error:
            modes.close()
            self._retry_or_fail(group, error)
            return
        self._runs.append(MethodRun(run, dict(enumerate(places)), count_rows(group), modes))
        for task in group:
            task.start()

    def _take_group(self) -> list[GenerationTask]:
        """Take the first waiting job, with others of equal settings if its method ranks, while rows are free."""
        free = self._limits.rows - sum(run.rows for run in self._runs)
        if not self._waiting or (self._runs and count_rows([self._waiting[0]]) > free):
            return []
        first = self._waiting.popleft()
        group = [first]
        if first.ranked and first not in self._alone:
            settings = list_settings(first)
            for task in list(self._waiting):
                fits = count_rows([*group, task]) <= free
                if fits and task.ranked and task not in self._alone and list_settings(task) == settings:
                    self._waiting.remove(task)
                    group.append(task)
        return group

    def _retry_or_fail(self, tasks: list[GenerationTask], error: Exception) -> None:
        """Start the jobs of a group again one by one, because the failure may be that of one of them."""
        tasks = [task for task in tasks if not task.ended]
        self._alone.difference_update(tasks)
        if len(tasks) < 2:
            fail_tasks(tasks, error)
            return
        for task in reversed(tasks):
            task.restart()
            self._waiting.appendleft(task)
        self._alone.update(tasks)

    def _end(self, run: MethodRun) -> None:
        self._runs.remove(run)
        self._alone.difference_update(run.tasks)
        run.modes.close()


def count_rows(tasks: list[GenerationTask]) -> int:
    """Count the rows of the cache that decode tasks of one method."""
    return sum(task.session.method.rows_per_request * len(task.requests) for task in tasks)


def list_settings(task: GenerationTask) -> dict[str, object]:
    """List the settings that the requests of one run share; each request has its own limit and seed."""
    own = ("max_new_tokens", "seed", "num_return_sequences")
    return {name: value for name, value in task.session.options.settings.items() if name not in own}
