"""UTF-8 bytes, special ids, sentinels and modes as tokens."""

import re
from collections.abc import Sequence
from typing import Any

from lightning_xt.data.tokenizers.base import TextStream, Tokenizer
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.data.tokenizers.special_bytes import SPECIALS
from lightning_xt.system.option_checks import check_option

FIRST = 256 + SPECIALS
"""The id of the first sentinel."""


class SentinelBytes(Tokenizer):
    """Encode text as UTF-8 bytes, byte b as id b + 3, besides sentinels and modes, for denoising.

    Ids 0, 1 and 2 are the pad, start and end ids. Sentinel k, written <extra_id_k> as in T5, stands for the k-th hidden
    span; its id is 259 + k. The modes have the ids after the sentinels; a text may begin with one in brackets, such as
    [R].

    Args:
        num_sentinels: number of sentinels.
        modes: names of the modes.
    """

    pad, start, end = 0, 1, 2

    def __init__(self, num_sentinels: int = 100, modes: Sequence[str] = ()) -> None:
        check_option("SentinelBytes", "--data.tokenizer.num_sentinels", num_sentinels, least=0)
        self.num_sentinels, self.modes = num_sentinels, list(modes)
        spelled = [f"<extra_id_{number}>" for number in range(num_sentinels)] + [f"[{mode}]" for mode in modes]
        self._spelled = dict(enumerate(spelled, FIRST))
        self._ids = {text: token for token, text in self._spelled.items()}
        self._bytes = Bytes()

    @property
    def init_args(self) -> dict[str, Any]:
        return {"num_sentinels": self.num_sentinels, "modes": self.modes}

    @property
    def vocab_size(self) -> int:
        return FIRST + len(self._spelled)

    @property
    def unused(self) -> Sequence[int]:
        return [*super().unused, *(self.find_mode(mode) for mode in self.modes)]

    def find_sentinels(self, count: int) -> range:
        """Return the ids of the first sentinels."""
        return range(FIRST, FIRST + count)

    def find_mode(self, mode: str) -> int:
        """Return the id of a mode."""
        return self._ids[f"[{mode}]"]

    def encode(self, text: str) -> list[int]:
        mode = next((f"[{each}]" for each in self.modes if text.startswith(f"[{each}]")), "")
        found = [] if not mode else [self._ids[mode]]
        for piece in re.split(r"(<extra_id_\d{1,9}>)", text.removeprefix(mode)):
            known = self._ids.get(piece)
            found += [byte + SPECIALS for byte in self._bytes.encode(piece)] if known is None else [known]
        return found

    def decode(self, ids: Sequence[int]) -> str:
        stream = self.stream()
        return "".join(map(stream.push, ids)) + stream.finish()

    def stream(self) -> TextStream:
        return _SentinelStream(self._bytes, self._spelled)


class _SentinelStream(TextStream):
    """Incremental decoder of bytes, which a sentinel or a mode completes."""

    def __init__(self, plain: Bytes, spelled: dict[int, str]) -> None:
        self._plain, self._spelled = plain, spelled
        self._stream = plain.stream()

    def push(self, token: int) -> str:
        if token < SPECIALS:
            return ""
        if token < FIRST:
            return self._stream.push(token - SPECIALS)
        rest, self._stream = self._stream.finish(), self._plain.stream()
        return rest + self._spelled[token]

    def finish(self) -> str:
        return self._stream.finish()
