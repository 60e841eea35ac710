"""Byte-pair encoding of the `tokenizers` library, compared with a naive one, on odd texts too."""

import json
import random
from collections import Counter
from itertools import pairwise

import pytest
import regex

from lightning_xt.data.tokenizers.bpe import BPE

PIECES = regex.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+"
    r"|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+"
)
"""GPT-2's boundaries, across which there are no merges."""
SHOWN = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
HIDDEN = [byte for byte in range(256) if byte not in SHOWN]
SPELLING = {byte: chr(byte) for byte in SHOWN} | {byte: chr(256 + n) for n, byte in enumerate(HIDDEN)}
"""GPT-2's spelling of bytes."""
LESSONS = [
    "the cat and the hat, the cat's hats",
    "",
    "   ",
    "Straße, Straßen; 日本 日本語 🙂🙂 e\u0301e\u0301",
    "the\u00a0cat\tthe\r\ncat  12 123 1234 don't we'll",
    "the cat sat on the mat; that cat sat there",
]
ODD = [
    "",
    " ",
    "   a   ",
    "\n\r\n\t",
    "\u00a0the\u2003cat\u3000\u2028\x85",
    "\x00\x1c\x1d\x1f\x7f",
    "日本語🙂",
    "e\u0301\u0301",
    "don't DON'T we'll'll '",
    "<pad><start> <end>",
    "the" * 50,
    "１２³½ⅷ",
    "👩\u200d🚀\ufe0f",
    "\ufeffthe",
    "ﬁ ǆ ß \u0131 İ",
]


def split(text):
    return [[SPELLING[byte] for byte in piece.encode()] for piece in PIECES.findall(text)]


def merge(symbols, pair):
    """Merge a pair wherever it stands, from the left."""
    found, rest = [], list(symbols)
    while rest:
        taken = 2 if tuple(rest[:2]) == pair else 1
        found.append("".join(rest[:taken]))
        rest = rest[taken:]
    return found


def learn(texts, size):
    """Learn merges: the most frequent pair each time, of equal ones that with the smallest ids."""
    ids = {symbol: n for n, symbol in enumerate(["<pad>", "<start>", "<end>", *sorted(SPELLING.values())])}
    words = Counter(tuple(word) for text in texts for word in split(text))
    merges = []
    while len(ids) < size:
        pairs = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs or max(pairs.values()) < 2:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], ids[pair[0]], ids[pair[1]]))
        merges.append(best)
        ids.setdefault("".join(best), len(ids))
        merged = Counter()
        for word, count in words.items():
            merged[tuple(merge(word, best))] += count
        words = merged
    return ids, merges


def encode(text, ids, merges):
    found = []
    for symbols in split(text):
        for pair in merges:
            symbols = merge(symbols, pair)
        found += [ids[symbol] for symbol in symbols]
    return found


@pytest.fixture(scope="module")
def learned():
    tokenizer = BPE(300)
    tokenizer.train(lambda: LESSONS)
    return tokenizer, *learn(LESSONS, 300)


def test_cases_d2_the_naive_encoding_learns_the_same(learned):
    tokenizer, ids, merges = learned
    described = json.loads(tokenizer.trained_state)["model"]
    assert described["vocab"] == ids
    assert [tuple(pair) for pair in described["merges"]] == merges
    assert len(merges) > 20


@pytest.mark.parametrize("text", [*ODD, *LESSONS], ids=ascii)
def test_cases_d2_odd_texts_have_the_naive_ids(learned, text):
    tokenizer, ids, merges = learned
    assert tokenizer.encode(text) == encode(text, ids, merges)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_cases_d2_random_texts_have_the_naive_ids(learned):
    tokenizer, ids, merges = learned
    draw = random.Random(0)
    parts = [*"the cats  \n\t'", "\u00a0", "日", "🙂", "\u0301", "1", "12", "'ll", "\x1c", "ß"]
    texts = ["".join(draw.choices(parts, k=draw.randint(0, 25))) for _ in range(300)]
    assert tokenizer.encode_batch(texts) == [encode(text, ids, merges) for text in texts]
