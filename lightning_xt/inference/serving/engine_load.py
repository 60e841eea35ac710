"""Load of the serving engine."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineLoad:
    """Load of one model.

    Args:
        running: jobs being decoded.
        waiting: jobs that wait for a row.
        sequences: sequences of both, which `max_waiting` limits.
        prompt_tokens: tokens of prompts and sources so far.
        generated_tokens: generated tokens so far.
        completed: jobs that went well so far.
        failed: jobs that ended with an error so far.
        cancelled: jobs that were cancelled so far.
    """

    running: int
    waiting: int
    sequences: int
    prompt_tokens: int
    generated_tokens: int
    completed: int
    failed: int
    cancelled: int
