"""Conversations as ids, with a mask of the responses."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lightning_xt.data.chat.chat_templates import Span
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.repetition import refuse_random

BATCH = 1 << 14
"""Spans that are encoded at once; a library's threads share them."""


@dataclass(frozen=True)
class EncodedConversations:
    """Conversations as ids, one after another.

    Args:
        ids: the ids of all conversations.
        scored: True for the ids of responses, an end id after the last included.
        offsets: start of each conversation, and the end of the last.
        too_long: number of conversations with more tokens than the limit.
        dropped: number of those that are not among these.
        response_bytes: bytes of the text of all responses.
    """

    ids: NDArray[np.int32]
    scored: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    too_long: int
    dropped: int
    response_bytes: int

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of ids of each conversation."""
        return np.diff(self.offsets)


def encode_spans(tokenizer: Tokenizer, spans: Sequence[Span]) -> list[int]:
    """Encode the prompt of a conversation span by span, after the start id if there is one."""
    opening = [] if tokenizer.start is None else [tokenizer.start]
    return [*opening, *chain.from_iterable(tokenizer.encode_batch([span.text for span in spans]))]


def encode_conversations(
    conversations: Sequence[Sequence[Span]], tokenizer: Tokenizer, limit: int, too_long: Literal["drop", "truncate"]
) -> EncodedConversations:
    """Encode conversations: the start id, the spans and the end id, of which the tokenizer may have none.

    Args:
        conversations: spans of each.
        tokenizer: a tokenizer that has learned.
        limit: most ids of a conversation.
        too_long: whether longer ones are dropped, or cut on the right and dropped if no id of a response is left.

    Raises:
        ValueError: the tokenizer draws random numbers.
    """
    texts = [span.text for spans in conversations for span in spans]
    encoded = iter(_encode(texts, tokenizer))
    opening, closing = (
        np.asarray([] if special is None else [special], dtype=np.uint32)
        for special in (tokenizer.start, tokenizer.end)
    )
    ids: list[NDArray[np.uint32]] = []
    scored: list[NDArray[np.bool_]] = []
    excess = dropped = num_bytes = 0
    for spans in conversations:
        parts = [opening, *(next(encoded) for _ in spans), closing]
        flags = [False, *(span.is_response for span in spans), True]
        whole = np.concatenate(parts)
        counted = np.repeat(flags, [len(part) for part in parts])
        # Nothing comes before the first token that could predict it.
        counted[:1] = False
        size, total = sum(len(span.text.encode()) for span in spans if span.is_response), int(counted.sum())
        if len(whole) > limit:
            excess += 1
            whole, counted = whole[:limit], counted[:limit]
            if too_long == "drop" or not counted.any():
                dropped += 1
                continue
            # In proportion, because a token need not be whole characters.
            size = size * int(counted.sum()) // total
        ids.append(whole)
        scored.append(counted)
        num_bytes += size
    return EncodedConversations(
        ids=np.concatenate([*ids, opening[:0]]).astype(np.int32),
        scored=np.concatenate([*scored, np.zeros(0, dtype=np.bool_)]),
        offsets=np.cumsum([0, *(len(each) for each in ids)], dtype=np.int64),
        too_long=excess,
        dropped=dropped,
        response_bytes=num_bytes,
    )


def _encode(texts: Sequence[str], tokenizer: Tokenizer) -> list[NDArray[np.uint32]]:
    found: list[NDArray[np.uint32]] = []
    for first in range(0, len(texts), BATCH):
        found += tokenizer.encode_arrays(texts[first : first + BATCH])
    refuse_random(tokenizer, texts[:8], found[:8])
    return found
