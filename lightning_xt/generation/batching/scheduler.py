"""Places for texts to be written in, and the requests that wait for one.

Prompts of similar lengths are read together. A text that is finished makes room: the next prompt is read into its
place, or the last row is moved there and the batch becomes smaller.
"""

from collections import deque
from collections.abc import Sequence

import torch

from lightning_xt.generation.batching.row_inputs import count_soft_tokens
from lightning_xt.generation.batching.running_batch import RequestState, RunningBatch
from lightning_xt.generation.protocol import Autoregressive
from lightning_xt.generation.requests import GeneratedToken, Request, SamplingParams

READ_AT_ONCE = 8192
"""Tokens of prompts, padding included."""
ASK_EVERY = 16
"""Steps after which a device other than the CPU is asked what it has drawn, because to ask is to wait for it."""


class Scheduler:
    """Writes texts, so many at a time.

    Args:
        model: in evaluation mode.
        requests: in the order in which they get a place.
        choices: how tokens are chosen.
    """

    def __init__(self, model: Autoregressive, requests: Sequence[Request], choices: SamplingParams) -> None:
        self.model, self.choices = model, choices
        self.waiting = deque(RequestState(number, request) for number, request in enumerate(requests))
        self.capacity = max(text.read + text.remaining for text in self.waiting)
        self.on_host = on_host(requests[0].prompt.device)
        self.batch: RunningBatch | None = None

    @property
    def busy(self) -> bool:
        """Whether there is anything left to draw."""
        return self.batch is not None or bool(self.waiting)

    def advance(self) -> list[GeneratedToken]:
        """Draws the next token of each text, or the next few where waiting for a device would take longer."""
        if self.batch is None:
            heard = self._begin()
        else:
            alive = [text.remaining for text in self.batch.texts if not text.finished]
            for _ in range(1 if self.on_host else min(ASK_EVERY, *alive)):
                self.batch.step()
            heard = self.batch.collect()
        return heard + self._make_room()

    def _begin(self) -> list[GeneratedToken]:
        first, *others = _alike(self._next(self.choices.batch))
        self.batch = RunningBatch(self.model, first, self.choices, self.capacity, growing=True)
        heard = self.batch.collect()
        if others:
            start = len(first)
            self.batch.widen(sum(map(len, others)))
            for group in others:
                heard += self._put(self.batch, group, range(start, start + len(group)))
                start += len(group)
            self.batch.commit()
        return heard

    def _make_room(self) -> list[GeneratedToken]:
        """Gives the places of finished texts to those that wait, or gives them up."""
        heard: list[GeneratedToken] = []
        batch = self.batch
        if batch is None or not any(text.finished for text in batch.texts):
            return heard
        while self.waiting and (free := [at for at, text in enumerate(batch.texts) if text.finished]):
            for group in _alike(self._next(len(free))):
                heard += self._put(batch, group, free[: len(group)])
                free = free[len(group) :]
        alive = sum(not text.finished for text in batch.texts)
        # On a CPU every row costs; elsewhere a smaller batch hardly costs less, and new shapes cost.
        if self.on_host or alive <= len(batch.texts) // 2:
            batch.compact()
        elif alive < len(batch.texts):
            batch.forget()
        if alive:
            batch.commit()
        else:
            self.batch = None
        return heard

    def _put(self, batch: RunningBatch, group: Sequence[RequestState], places: Sequence[int]) -> list[GeneratedToken]:
        new = RunningBatch(self.model, group, self.choices, self.capacity, growing=False)
        batch.place(places, new)
        return new.collect()

    def _next(self, most: int) -> list[RequestState]:
        return [self.waiting.popleft() for _ in range(min(most, len(self.waiting)))]


def on_host(device: torch.device) -> bool:
    """Whether to look at a number costs nothing; elsewhere it means to wait."""
    return device.type == "cpu"


def _alike(texts: Sequence[RequestState]) -> list[list[RequestState]]:
    """Texts whose prompts are read together: of about the same length, so that little is read in vain."""
    groups: list[list[RequestState]] = []
    for text in sorted(texts, key=lambda text: (count_soft_tokens(text.request.inputs), text.read)):
        length, group = text.read, groups[-1] if groups else []
        fits = (
            group
            and count_soft_tokens(group[0].request.inputs) == count_soft_tokens(text.request.inputs)
            and 4 * (length - group[0].read) <= length + 32
            and length * (len(group) + 1) <= READ_AT_ONCE
        )
        if fits:
            group.append(text)
        else:
            groups.append([text])
    return groups
