"""Serving engine: one thread that decodes for all clients of all models."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

import torch

from lightning_xt.generation.eval_mode import eval_mode
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.serving.engine_load import EngineLoad
from lightning_xt.inference.serving.events import (
    EngineClosedError,
    EngineFailedError,
    ErrorEvent,
    Event,
    LengthError,
    QueueFullError,
)
from lightning_xt.inference.serving.job import Job
from lightning_xt.inference.serving.job_requests import build_completion, build_translation, encode_prompt
from lightning_xt.inference.serving.model_worker import ModelWorker
from lightning_xt.inference.serving.step_failures import explain_failure
from lightning_xt.inference.serving.work_limits import WorkLimits, choose_tokens
from lightning_xt.inference.text_completer import TextCompleter
from lightning_xt.inference.text_generator import TextGenerator
from lightning_xt.inference.translation import Translator
from lightning_xt.system.messages import explain_unknown
from lightning_xt.system.option_checks import check_option

Generator = TypeVar("Generator", TextCompleter, Translator)
OnEvent = Callable[[Event], None]
logger = logging.getLogger(__name__)


class Engine:
    """Serving engine: one thread that decodes for all clients of all models.

    Clients submit jobs from any thread. Errors of the client are raised by the call that submits. Everything else
    arrives as events, on the engine's thread, by the `on_event` of the job. A job gets what it would get alone.

    Args:
        generators: completers and translators by the names of their models.
        rows: most sequences of a model that are sampled together; those of other methods have as many rows again.
        tokens: most tokens of a sequence, prompt and completion. None = the model's positions, else four times the
            trained length, else 4096.
        prefill_tokens: most tokens of prompts between two decode steps; longer prompts are read in pieces.
        max_waiting: most sequences of a model that wait for a row.

    Raises:
        ValueError: an option is out of range, or a model neither completes nor translates.
    """

    def __init__(
        self,
        generators: Mapping[str, TextGenerator],
        *,
        rows: int = 16,
        tokens: int | None = None,
        prefill_tokens: int = 512,
        max_waiting: int = 256,
    ) -> None:
        for name, value in (("rows", rows), ("tokens", tokens), ("prefill_tokens", prefill_tokens)):
            check_option("engine", name, value, least=1)
        check_option("engine", "max_waiting", max_waiting, least=0)
        self._workers: dict[str, ModelWorker] = {}
        for name, generator in generators.items():
            if not isinstance(generator, TextCompleter | Translator):
                raise ValueError(f"model {name!r} neither completes nor translates texts, so it cannot be served")
            limits = WorkLimits(rows, choose_tokens(generator, tokens), prefill_tokens, max_waiting)
            self._workers[name] = ModelWorker(generator, limits)
        self._commands: SimpleQueue[tuple[Job | None, Callable[[], None]]] = SimpleQueue()
        """Calls that the thread makes next, each with its job; None = it has none."""
        self._thread = threading.Thread(target=self._run, name="lightning-xt engine", daemon=True)
        self._lock = threading.Lock()
        self._accepting = True
        self._ending = False
        """True once the thread ends without finishing its jobs."""
        self._end_kind: type[EngineClosedError] = EngineClosedError
        self._jobs: dict[str, set[Job]] = {name: set() for name in self._workers}
        self._outcomes: dict[str, Counter[str]] = {name: Counter() for name in self._workers}

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """True while the thread runs."""
        return self._thread.is_alive()

    def has_alignment(self, model: str) -> bool:
        """Return whether a model can align its translations to their sources."""
        return self._workers[model].alignment_problem is None

    def complete(
        self,
        model: str,
        prompt: str | Sequence[int],
        options: GenerationOptions,
        on_event: OnEvent,
        *,
        alternatives: int = 0,
        repeat: int = 0,
        new_text: bool = False,
    ) -> Job:
        """Submit the completion of a prompt by a language model, in `options.num_return_sequences` sequences.

        A method that ranks sends `Candidates` in place of tokens.

        Args:
            model: name of a language model.
            prompt: text or ids.
            options: generation options; `max_new_tokens` None = 256, or what fits after the prompt.
            on_event: called with each event on the engine's thread; it must return at once.
            alternatives: number of most likely tokens to report with each token.
            repeat: number of equal prompts before it in one request, by which their random numbers differ.
            new_text: True if the completion begins a text, as an answer of a conversation does.

        Raises:
            ValueError: the model, the prompt or an option is invalid, or the sequence is too long.
            QueueFullError: too many jobs wait.
            EngineClosedError: the engine ends.
        """
        worker, completer = self._find(model, TextCompleter)
        given = build_completion(completer, prompt, options, alternatives, worker.limits, repeat, new_text)
        return self._submit(model, len(given.requests), on_event, partial(worker.generate, given=given))

    def translate(
        self,
        model: str,
        source: str,
        options: GenerationOptions,
        on_event: OnEvent,
        *,
        alignment: bool = False,
        alternatives: int = 0,
        repeat: int = 0,
    ) -> Job:
        """Submit the translation of a source by an encoder-decoder.

        Tokens are sent as those of completions. A method that ranks sends `Candidates` in place of them, and with
        `alignment` a sampled translation sends `Candidates` after them. The other arguments and the errors are those of
        `complete`.

        Args:
            model: name of an encoder-decoder.
            source: text to translate.
            options: generation options; greedy unless they have a temperature.
            on_event: called with each event on the engine's thread; it must return at once.
            alignment: True to compute the attention of each translation to its source.
            alternatives: number of most likely tokens to report with each token.
            repeat: number of equal sources before it in one request, by which their random numbers differ.
        """
        worker, translator = self._find(model, Translator)
        given = build_translation(translator, source, options, alternatives, worker.limits, repeat)
        if alignment and worker.alignment_problem is not None:
            raise ValueError(worker.alignment_problem)
        command = partial(worker.generate, given=given, alignment=alignment)
        return self._submit(model, len(given.requests), on_event, command)

    def score(self, model: str, prompt: str | Sequence[int], on_event: OnEvent, *, alternatives: int = 0) -> Job:
        """Submit the scoring of a prompt's own tokens by a language model, which sends `Scores`.

        The arguments and the errors are those of `complete`.
        """
        worker, completer = self._find(model, TextCompleter)
        check_option("generation", "alternatives", alternatives, least=0, most=worker.model.vocab_size)
        ids = encode_prompt(completer, prompt)
        if len(ids) > worker.limits.tokens:
            raise LengthError(
                f"the prompt has {len(ids)} tokens, but at most {worker.limits.tokens} fit here; shorten it"
            )
        command = partial(worker.score, tokens=ids, alternatives=alternatives, device=completer.device)
        return self._submit(model, 1, on_event, command)

    def drain(self, timeout: float | None = None) -> None:
        """Refuse new jobs, finish the accepted ones, and end the thread.

        Args:
            timeout: seconds after which unfinished jobs end with an error. None = no limit.
        """
        self._stop(ending=False)
        if self._thread.is_alive():
            self._thread.join(timeout)
        self.close()

    def close(self) -> None:
        """End the thread now; unfinished jobs end with an EngineClosedError."""
        self._stop(ending=True)
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()
        if not self._thread.is_alive():
            self._fail_all()

    def measure(self) -> dict[str, EngineLoad]:
        """Return the load of each model."""
        loads = {}
        with self._lock:
            for name, worker in self._workers.items():
                running = sum(job.running for job in self._jobs[name])
                outcomes = self._outcomes[name]
                loads[name] = EngineLoad(
                    running=running,
                    waiting=len(self._jobs[name]) - running,
                    sequences=sum(job.num_sequences for job in self._jobs[name]),
                    prompt_tokens=worker.counts.prompt,
                    generated_tokens=worker.counts.generated,
                    completed=outcomes["completed"],
                    failed=outcomes["failed"],
                    cancelled=outcomes["cancelled"],
                )
        return loads

    def _find(self, model: str, kind: type[Generator]) -> tuple[ModelWorker, Generator]:
        """Return the worker of a model and its generator; ValueError if there is none, or it is of the other kind."""
        if model not in self._workers:
            raise ValueError(explain_unknown("model", model, self._workers))
        worker = self._workers[model]
        if not isinstance(worker.generator, kind):
            it_does, other = ("completes prompts", "translate") if kind is Translator else ("translates", "complete")
            raise ValueError(f"model {model!r} {it_does}, so it cannot {other}; choose another model")
        return worker, worker.generator

    def _submit(self, model: str, sequences: int, on_event: OnEvent, command: Callable[[Job], None]) -> Job:
        worker = self._workers[model]
        job = Job(model, sequences, on_event, self._forget)
        with self._lock:
            if not self._accepting:
                raise self._end_kind("the engine is ending and accepts no more requests")
            live = sum(each.num_sequences for each in self._jobs[model])
            if live + sequences > worker.limits.sequences:
                raise QueueFullError(
                    f"{live} sequences of model {model!r} are running or waiting, and at most "
                    f"{worker.limits.sequences} may; try again later"
                )
            self._jobs[model].add(job)
            self._commands.put((job, partial(command, job)))
        return job

    def _forget(self, job: Job) -> None:
        """Remove a job that has closed."""
        with self._lock:
            self._jobs[job.model].discard(job)
            self._outcomes[job.model][job.outcome] += 1
        self._commands.put((job, partial(self._workers[job.model].remove, job)))

    def _stop(self, *, ending: bool) -> None:
        with self._lock:
            self._accepting, self._ending = False, self._ending or ending
        # Wakes the thread.
        self._commands.put((None, lambda: None))

    @property
    def _busy(self) -> bool:
        return any(worker.busy for worker in self._workers.values())

    def _run(self) -> None:
        """Decode until the engine ends."""
        try:
            with ExitStack() as modes, torch.inference_mode():
                for worker in self._workers.values():
                    for model in worker.list_models():
                        modes.enter_context(eval_mode(model))
                while not self._ending and (self._accepting or self._busy or not self._commands.empty()):
                    self._take_commands()
                    for worker in self._workers.values():
                        worker.advance()
        except BaseException:
            self._end_kind = EngineFailedError
            raise
        finally:
            # Also if the thread has a fault: no client waits for ever.
            self._stop(ending=True)
            self._fail_all()

    def _take_commands(self) -> None:
        """Run the waiting commands; an idle engine waits for one."""
        waits = not self._busy
        while waits or not self._commands.empty():
            waits = False
            job, command = self._commands.get()
            try:
                command()
            except Exception as error:
                logger.exception("a command of the engine failed")
                if job is not None:
                    job.send(ErrorEvent(explain_failure(error)))

    def _fail_all(self) -> None:
        """End the unfinished jobs."""
        with self._lock:
            jobs = [job for jobs in self._jobs.values() for job in jobs]
        for job in jobs:
            job.send(ErrorEvent(self._end_kind("the engine has ended before the request was finished")))
