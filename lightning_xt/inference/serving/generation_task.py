"""Generation of one job on the engine's thread: from tokens to events."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lightning_xt.core.inputs import Inputs
from lightning_xt.generation.engine import collect_results
from lightning_xt.generation.requests import GeneratedToken, Request, SamplingParams
from lightning_xt.inference.serving.events import Candidates, ErrorEvent, JobEnd, SequenceEnd, TokenEvent
from lightning_xt.inference.serving.job import Job
from lightning_xt.inference.serving.step_failures import explain_failure
from lightning_xt.inference.text_generator import Completion, GenerationSession


@dataclass(eq=False)
class TokenCounts:
    """Tokens of a model so far; the engine's thread counts them.

    Args:
        prompt: tokens of prompts and sources.
        generated: tokens of completions.
    """

    prompt: int = 0
    generated: int = 0


@dataclass(frozen=True, eq=False)
class JobRequests:
    """Checked requests of a job.

    Args:
        session: options, method and detokenizers.
        params: sampling parameters.
        requests: one for each sequence; those of an encoder-decoder get their context once it is encoded.
        source: ids of the source of an encoder-decoder. None = a language model.
    """

    session: GenerationSession
    params: SamplingParams
    requests: list[Request]
    source: list[int] | None = None

    @property
    def prompt_tokens(self) -> int:
        """Number of tokens of the prompt or the source."""
        return len(self.requests[0].prompt if self.source is None else self.source)


class GenerationTask:
    """Sequences of a job while they are decoded.

    Args:
        job: receives the events.
        given: requests of the job.
        counts: tokens of the model so far.
        align: called with the finished translations and the last event of the job, which it sends after their
            alignments. None = no alignments.
    """

    def __init__(
        self,
        job: Job,
        given: JobRequests,
        counts: TokenCounts,
        align: Callable[[list[Completion], JobEnd], None] | None = None,
    ) -> None:
        self.job, self.session, self.params = job, given.session, given.params
        self.requests, self.source, self.prompt_tokens = list(given.requests), given.source, given.prompt_tokens
        self.encoded = given.source is None
        """True once the requests hold the source's context."""
        self.ranked = self.session.method.ranked
        self.suspect = False
        """True after a failed step that may be its fault: it starts again without other new sequences."""
        self._counts, self._align = counts, align
        self.restart()

    def restart(self) -> None:
        """Forget all tokens, for a search that begins again."""
        self._detokenizers = [self.session.new_detokenizer(request.after) for request in self.requests]
        self._tokens: list[list[GeneratedToken]] = [[] for _ in self.requests]
        self._unfinished = set(range(len(self.requests)))
        self._generated = 0
        self._seen, self._sent = [0] * len(self.requests), [0] * len(self.requests)

    def replay(self, sequence: int) -> None:
        """Decode a sequence again from its start; the tokens that were sent are not sent again."""
        self._seen[sequence] = 0

    def has_begun(self, sequence: int) -> bool:
        """Return True once a sequence has a token."""
        return self._seen[sequence] > 0

    @property
    def ended(self) -> bool:
        """True once nothing is left to decode."""
        return self.job.closed or not self._unfinished

    def start(self) -> None:
        """Mark the job as running."""
        if not self.job.running:
            self.job.running = True
            self._counts.prompt += self.prompt_tokens

    def set_inputs(self, inputs: Inputs) -> None:
        """Give the requests the context of the encoded source."""
        self.requests = [replace(request, inputs=inputs) for request in self.requests]
        self.encoded = True

    def push(self, sequence: int, token: GeneratedToken) -> None:
        """Add the next token of a sequence; send its events, unless the method ranks."""
        if sequence not in self._unfinished or self.job.closed:
            return
        self._seen[sequence] += 1
        if self._seen[sequence] <= self._sent[sequence]:
            return
        self._sent[sequence] += 1
        try:
            self._push(sequence, token)
        except Exception as error:
            self.fail(explain_failure(error))

    def end_run(self) -> None:
        """End the job after the last token of its method, which may rank fewer sequences than requested."""
        if not self._unfinished or self.job.closed:
            return
        self._unfinished.clear()
        try:
            self._finish()
        except Exception as error:
            self.fail(explain_failure(error))

    def fail(self, error: Exception) -> None:
        """End the job with an error."""
        self.job.send(ErrorEvent(error))

    def _push(self, sequence: int, token: GeneratedToken) -> None:
        self._generated += 1
        self._counts.generated += 1
        if self.ranked or self._align is not None:
            self._tokens[sequence].append(replace(token, request=0))
        if self.ranked:
            ended = sum(each.last for each in self._tokens[sequence])
            finished = ended == self.session.method.num_sequences
        else:
            finished = self._send(sequence, token)
        if finished:
            self._unfinished.discard(sequence)
        if not self._unfinished:
            self._finish()

    def _send(self, sequence: int, token: GeneratedToken) -> bool:
        """Send the events of a token; return True for the last one of its sequence."""
        detokenizer = self._detokenizers[sequence]
        text = "".join(piece.text for piece in detokenizer.push(token.token, token.log_prob))
        self.job.send(TokenEvent(sequence, token.token, token.log_prob, text, token.alternatives))
        # Your own method may ignore stop strings.
        if not token.last and not detokenizer.stopped:
            return False
        rest = "".join(piece.text for piece in detokenizer.finish())
        stopped = detokenizer.stopped or token.token == self.session.end
        self.job.send(SequenceEnd(sequence, rest, "stop" if stopped else "length"))
        return True

    def _finish(self) -> None:
        end = JobEnd(self.prompt_tokens, self._generated)
        if self.ranked or self._align is not None:
            completions = [each for tokens in self._tokens for each in self._make_completions(tokens)]
            if self._align is not None:
                self._align(completions, end)
                return
            self.job.send(Candidates(completions))
        self.job.send(end)

    def _make_completions(self, tokens: Sequence[GeneratedToken]) -> list[Completion]:
        return self.session.make_completions(collect_results(tokens, 1)[0], self.requests[0].after)
