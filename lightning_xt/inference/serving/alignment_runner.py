"""Alignments of finished translations, computed one by one between decode steps."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from lightning_xt.inference.serving.events import Alignment, Candidates, ErrorEvent, JobEnd
from lightning_xt.inference.serving.job import Job
from lightning_xt.inference.serving.source_alignment import compute_alignment
from lightning_xt.inference.serving.step_failures import explain_failure
from lightning_xt.inference.text_generator import Completion
from lightning_xt.inference.translation import Translator


@dataclass(eq=False)
class AlignmentTask:
    """Translations of one source that are aligned.

    Args:
        job: receives the translations, with their alignments, and its end.
        source: ids of the source.
        completions: the translations.
        end: last event of the job.
        aligned: alignments so far.
    """

    job: Job
    source: Sequence[int]
    completions: list[Completion]
    end: JobEnd
    aligned: list[Alignment] = field(default_factory=list)

    def advance(self, translator: Translator) -> None:
        """Align the next translation; send all after the last."""
        if len(self.aligned) < len(self.completions):
            tokens = self.completions[len(self.aligned)].tokens
            self.aligned.append(compute_alignment(translator, self.source, tokens))
        if len(self.aligned) == len(self.completions):
            self.job.send(Candidates(self.completions, self.aligned))
            self.job.send(self.end)


class AlignmentRunner:
    """Alignment of translations, one a step, because each is a forward of its whole source and target.

    Args:
        translator: encoder-decoder. None = a language model, which has no alignments.
    """

    def __init__(self, translator: Translator | None) -> None:
        self._translator = translator
        self._waiting: deque[AlignmentTask] = deque()

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    def add(self, task: AlignmentTask) -> None:
        """Queue the translations of a job."""
        self._waiting.append(task)

    def remove(self, job: Job) -> None:
        """Drop a job."""
        self._waiting = deque(task for task in self._waiting if task.job is not job)

    def advance(self) -> None:
        """Align one translation; sources take turns."""
        if not self._waiting or self._translator is None:
            return
        task = self._waiting.popleft()
        try:
            task.advance(self._translator)
        except Exception as error:
            task.job.send(ErrorEvent(explain_failure(error)))
        if not task.job.closed:
            self._waiting.append(task)

    def fail(self, error: Exception) -> None:
        """End all jobs with an error."""
        tasks, explained = list(self._waiting), explain_failure(error)
        self._waiting.clear()
        for task in tasks:
            task.job.send(ErrorEvent(explained))
