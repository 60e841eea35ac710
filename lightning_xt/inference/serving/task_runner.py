"""Work between decode steps that is not decoding: scores of prompts, and alignments."""

from collections import deque
from typing import Protocol

from lightning_xt.inference.serving.events import ErrorEvent
from lightning_xt.inference.serving.job import Job
from lightning_xt.inference.serving.step_failures import explain_failure


class Task(Protocol):
    """Work of one job."""

    job: Job

    def advance(self) -> None:
        """Do a step of the work; the last one ends the job."""


class TaskRunner:
    """Tasks in their order, one step at a time."""

    def __init__(self) -> None:
        self._waiting: deque[Task] = deque()

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    def add(self, task: Task) -> None:
        """Queue a task."""
        self._waiting.append(task)

    def remove(self, job: Job) -> None:
        """Drop the tasks of a job."""
        self._waiting = deque(task for task in self._waiting if task.job is not job)

    def advance(self) -> None:
        """Run a step of the first task."""
        if not self._waiting:
            return
        task = self._waiting[0]
        try:
            task.advance()
        except Exception as error:
            task.job.send(ErrorEvent(explain_failure(error)))
        if task.job.closed:
            self._waiting.remove(task)

    def fail(self, error: Exception) -> None:
        """End all jobs with an error."""
        tasks, explained = list(self._waiting), explain_failure(error)
        self._waiting.clear()
        for task in tasks:
            task.job.send(ErrorEvent(explained))
