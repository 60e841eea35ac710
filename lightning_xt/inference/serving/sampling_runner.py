"""Sampled sequences of a model's jobs, decoded together by its scheduler."""

from collections import deque
from dataclasses import dataclass, field
from itertools import count

from lightning_xt.generation.batching.scheduler import Scheduler
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.inference.serving.generation_task import GenerationTask
from lightning_xt.inference.serving.job import Job
from lightning_xt.inference.serving.source_encoding import encode_tasks
from lightning_xt.inference.serving.step_failures import explain_failure
from lightning_xt.inference.serving.work_limits import WorkLimits
from lightning_xt.inference.translation import Translator

SYNC_EVERY = 4
"""Steps between reads of tokens from a GPU: clients see a stream, and cancelled requests leave soon."""
MAX_WINDOWS = 2
"""Schedulers of different windows at once, besides that of the model's own, because each has its own cache."""


@dataclass(eq=False)
class WindowedScheduler:
    """Scheduler of one window, with the sequences in it.

    Args:
        scheduler: decodes them.
        sequences: task and sequence of each request, by the number of the request.
    """

    scheduler: Scheduler
    sequences: dict[int, tuple[GenerationTask, int]] = field(default_factory=dict)

    def list_new(self) -> list[tuple[GenerationTask, int]]:
        """List the sequences without a token."""
        return [(task, sequence) for task, sequence in self.sequences.values() if not task.has_begun(sequence)]

    def admits(self, task: GenerationTask) -> bool:
        """Return False if a task, or another one that is new, must be new without others."""
        new = [other for other, _ in self.list_new()]
        return not new or not any(each.suspect for each in (task, *new))


class SamplingRunner:
    """Continuous batching of sampled sequences: waiting jobs get the rows of finished ones, first come, first served.

    Sequences of all windows share the rows. One whose window must wait for another to become idle lets those of the
    model's own window pass, which always has a scheduler.

    Args:
        model: in evaluation mode.
        limits: limits of the decoding.
        translator: encodes the sources of an encoder-decoder. None = a language model.
    """

    def __init__(self, model: Autoregressive, limits: WorkLimits, translator: Translator | None = None) -> None:
        self._model, self._limits, self._translator = model, limits, translator
        self._waiting: deque[tuple[GenerationTask, int]] = deque()
        self._windows: dict[int | None, WindowedScheduler] = {}
        self._numbers = count()

    @property
    def busy(self) -> bool:
        return bool(self._waiting) or any(each.scheduler.busy for each in self._windows.values())

    def add(self, task: GenerationTask) -> None:
        """Queue all sequences of a job."""
        self._waiting.extend((task, sequence) for sequence in range(len(task.requests)))

    def remove(self, job: Job) -> None:
        """Drop the sequences of a job."""
        self._waiting = deque(each for each in self._waiting if each[0].job is not job)
        for each in self._windows.values():
            for number in [number for number, (task, _) in each.sequences.items() if task.job is job]:
                del each.sequences[number]
                each.scheduler.cancel(number)

    def advance(self) -> None:
        """Admit waiting sequences and run one step of each scheduler."""
        self._admit()
        for window, each in list(self._windows.items()):
            if not each.scheduler.busy:
                continue
            try:
                tokens = each.scheduler.advance()
            except Exception as error:
                # Its cache may be half written.
                del self._windows[window]
                self._recover(each, error)
                continue
            for token in tokens:
                place = each.sequences.get(token.request)
                if place is not None:
                    if token.last:
                        del each.sequences[token.request]
                    place[0].push(place[1], token)

    def fail(self, error: Exception) -> None:
        """End all jobs with an error, and forget the schedulers."""
        tasks = [task for task, _ in self._waiting]
        tasks += [task for each in self._windows.values() for task, _ in each.sequences.values()]
        self._waiting.clear()
        self._windows.clear()
        fail_tasks(tasks, error)

    def _recover(self, failed: WindowedScheduler, error: Exception) -> None:
        """End the jobs that a failed step concerns; decode the others again, from their starts.

        New sequences are concerned, because prompts need the most memory and a filter fails at its first token; if
        there are several, they start again one by one. Without new sequences, all are concerned.
        """
        new, places = failed.list_new(), list(failed.sequences.values())
        if len(new) < 2:
            fail_tasks([task for task, _ in new or places], error)
        else:
            for task, _ in new:
                task.suspect = True
        again = [place for place in places if place not in new] + new
        again = [(task, sequence) for task, sequence in again if not task.job.closed]
        for task, sequence in reversed(again):
            task.replay(sequence)
            self._waiting.appendleft((task, sequence))

    def _admit(self) -> None:
        """Submit waiting sequences while rows are free: in their order, but for those whose window must wait."""
        admitted: list[tuple[WindowedScheduler, int]] = []
        unencoded: list[GenerationTask] = []
        held: deque[tuple[GenerationTask, int]] = deque()
        held_windows: set[int | None] = set()
        free = self._limits.rows - sum(len(each.sequences) for each in self._windows.values())
        while self._waiting and len(admitted) < free:
            task, sequence = self._waiting[0]
            windowed = None if task.params.window in held_windows else self._find_scheduler(task.params.window)
            if windowed is None or not windowed.admits(task):
                # Later ones of busy windows wait too: they would keep its place for ever.
                held_windows |= {task.params.window} | (self._windows.keys() - {None} if windowed is None else set())
                held.append(self._waiting.popleft())
                continue
            if not task.encoded and task not in unencoded:
                # Sources are encoded whole, which must not take long either.
                if unencoded and sum(each.prompt_tokens for each in unencoded) >= self._limits.prefill_tokens:
                    break
                unencoded.append(task)
            self._waiting.popleft()
            number = next(self._numbers)
            windowed.sequences[number] = task, sequence
            admitted.append((windowed, number))
        self._waiting.extendleft(reversed(held))
        encode_tasks(self._translator, unencoded)
        for windowed, number in admitted:
            self._submit(windowed, number)

    def _submit(self, windowed: WindowedScheduler, number: int) -> None:
        task, sequence = windowed.sequences[number]
        if task.job.closed:
            del windowed.sequences[number]
            return
        try:
            windowed.scheduler.submit(number, task.requests[sequence], task.params)
            task.start()
        except ValueError as error:
            del windowed.sequences[number]
            fail_tasks([task], error)

    def _find_scheduler(self, window: int | None) -> WindowedScheduler | None:
        """Return the scheduler of a window; None if its place is taken by busy ones."""
        if window in self._windows:
            return self._windows[window]
        others = {key: each for key, each in self._windows.items() if key is not None}
        if window is not None and len(others) >= MAX_WINDOWS:
            idle = [key for key, each in others.items() if not each.sequences and not each.scheduler.busy]
            if not idle:
                return None
            del self._windows[idle[0]]
        sequences: dict[int, tuple[GenerationTask, int]] = {}

        def fail_sequence(number: int, error: Exception) -> None:
            place = sequences.pop(number, None)
            if place is not None:
                fail_tasks([place[0]], error)

        limits = self._limits
        scheduler = Scheduler(
            self._model,
            rows=limits.rows,
            tokens=limits.tokens,
            window=window,
            prefill_tokens=limits.prefill_tokens,
            on_error=fail_sequence,
            sync_every=SYNC_EVERY,
        )
        self._windows[window] = WindowedScheduler(scheduler, sequences)
        return self._windows[window]


def fail_tasks(tasks: list[GenerationTask], error: Exception) -> None:
    """End the jobs of tasks with an error of a step."""
    if tasks:
        explained = explain_failure(error)
        for task in tasks:
            task.fail(explained)
