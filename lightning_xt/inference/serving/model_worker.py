"""Work of one model on the engine's thread."""

from collections.abc import Sequence
from functools import partial

import torch

from lightning_xt.generation.methods.sample import Sample
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.serving.alignment_task import AlignmentTask
from lightning_xt.inference.serving.events import JobEnd
from lightning_xt.inference.serving.generation_task import GenerationTask, JobRequests, TokenCounts
from lightning_xt.inference.serving.job import Job
from lightning_xt.inference.serving.method_runner import MethodRunner
from lightning_xt.inference.serving.sampling_runner import SamplingRunner
from lightning_xt.inference.serving.scoring_task import ScoringTask
from lightning_xt.inference.serving.source_alignment import find_alignment_problem
from lightning_xt.inference.serving.task_runner import TaskRunner
from lightning_xt.inference.serving.work_limits import WorkLimits
from lightning_xt.inference.text_completer import TextCompleter
from lightning_xt.inference.text_generator import Completion
from lightning_xt.inference.translation import Translator

DEFAULTS = GenerationOptions()


class ModelWorker:
    """Runners of one model: sampling, other methods, scoring and alignment, which take turns.

    Args:
        generator: completes or translates.
        limits: limits of the decoding.
    """

    def __init__(self, generator: TextCompleter | Translator, limits: WorkLimits) -> None:
        self.generator, self.limits, self.counts = generator, limits, TokenCounts()
        self.translator = generator if isinstance(generator, Translator) else None
        self.model: Autoregressive = generator.open_session(DEFAULTS).model
        self.alignment_problem = (
            "it translates nothing" if self.translator is None else find_alignment_problem(self.translator)
        )
        """Reason why there are no alignments. None = there are."""
        self._sampling = SamplingRunner(self.model, limits, self.translator)
        self._methods = MethodRunner(limits, self.translator)
        self._scoring, self._aligning = TaskRunner(), TaskRunner()
        self._runners = (self._sampling, self._methods, self._scoring, self._aligning)

    @property
    def busy(self) -> bool:
        return any(runner.busy for runner in self._runners)

    def list_models(self) -> list[Autoregressive | torch.nn.Module]:
        """Return the models to put into evaluation mode."""
        return [self.model] if self.translator is None else [self.translator.network, self.model]

    def generate(self, job: Job, given: JobRequests, *, alignment: bool = False) -> None:
        """Queue a completion or a translation."""
        align = None
        if alignment and self.translator is not None:
            align = partial(self._align, self.translator, job, given.source or [])
        task = GenerationTask(job, given, self.counts, align)
        if isinstance(given.session.method, Sample):
            self._sampling.add(task)
        else:
            self._methods.add(task)

    def _align(
        self, translator: Translator, job: Job, source: Sequence[int], completions: list[Completion], end: JobEnd
    ) -> None:
        self._aligning.add(AlignmentTask(translator, job, source, completions, end))

    def score(self, job: Job, tokens: list[int], alternatives: int, device: torch.device) -> None:
        """Queue the scoring of a prompt."""
        piece = self.limits.prefill_tokens
        self._scoring.add(ScoringTask(job, tokens, alternatives, device, self.counts, self.model, piece))

    def remove(self, job: Job) -> None:
        """Drop a closed job."""
        for runner in self._runners:
            runner.remove(job)

    def advance(self) -> None:
        """Run one step of each runner. An error that no runner expects ends the jobs of that runner."""
        for runner in self._runners:
            if runner.busy:
                try:
                    runner.advance()
                except Exception as error:
                    runner.fail(error)

    def fail(self, error: Exception) -> None:
        """End all jobs with an error."""
        for runner in self._runners:
            runner.fail(error)
