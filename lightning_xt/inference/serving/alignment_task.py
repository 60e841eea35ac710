"""Alignments of finished translations, computed one by one between decode steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lightning_xt.inference.serving.events import Alignment, Candidates, JobEnd
from lightning_xt.inference.serving.job import Job
from lightning_xt.inference.serving.source_alignment import compute_alignment
from lightning_xt.inference.text_generator import Completion
from lightning_xt.inference.translation import Translator


@dataclass(eq=False)
class AlignmentTask:
    """Translations of one source that are aligned, one a step, because each is a forward of its source and target.

    Args:
        translator: encoder-decoder.
        job: receives the translations, with their alignments, and its end.
        source: ids of the source.
        completions: the translations.
        end: last event of the job.
        aligned: alignments so far.
    """

    translator: Translator
    job: Job
    source: Sequence[int]
    completions: list[Completion]
    end: JobEnd
    aligned: list[Alignment] = field(default_factory=list)

    def advance(self) -> None:
        """Align the next translation; send all after the last."""
        if len(self.aligned) < len(self.completions):
            tokens = self.completions[len(self.aligned)].tokens
            self.aligned.append(compute_alignment(self.translator, self.source, tokens))
        if len(self.aligned) == len(self.completions):
            self.job.send(Candidates(self.completions, self.aligned))
            self.job.send(self.end)
