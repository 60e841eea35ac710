"""BLEU and chrF with the definitions and defaults of sacrebleu, for one reference.

BLEU: Papineni et al., 2002, https://doi.org/10.3115/1073083.1073135; words of mteval-v13a, cased, smoothed
exponentially.
chrF: Popović, 2015, https://doi.org/10.18653/v1/W15-3049; characters without white space, recall counts twice.
Both: Post, 2018, https://doi.org/10.18653/v1/W18-6319.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from torchmetrics import Metric

WORD_ORDER, CHARACTER_ORDER = 4, 6
"""Longest n-grams of BLEU and of chrF."""
ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
SPLITS = (
    (re.compile(r"([{-~\[-` -&(-+:-@/])"), r" \1 "),
    (re.compile(r"([^0-9])([.,])"), r"\1 \2 "),
    (re.compile(r"([.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
"""Punctuation stands by itself; full stops and commas within numbers do not."""


class TextScores(Metric):
    """BLEU and chrF of predictions and their references, from 0 to 100, over all processes."""

    full_state_update = False
    counts: Int[Tensor, "n 3"]
    """N-grams of each order of words, then of characters: in predictions, in references, in both."""

    def __init__(self) -> None:
        super().__init__()
        counts = torch.zeros(WORD_ORDER + CHARACTER_ORDER, 3, dtype=torch.int64)
        self.add_state("counts", counts, dist_reduce_fx="sum")

    def update(self, predictions: Sequence[str], references: Sequence[str]) -> None:
        """Add sentences."""
        counted = [self.counts.new_tensor(_count(*pair)) for pair in zip(predictions, references, strict=True)]
        self.counts += sum(counted)

    def compute(self) -> dict[str, float]:
        table: list[list[int]] = self.counts.tolist()
        return {"bleu": _compute_bleu(table[:WORD_ORDER]), "chrf": _compute_chrf(table[WORD_ORDER:])}


def _count(prediction: str, reference: str) -> list[list[int]]:
    words = _count_ngrams(_split_words(prediction), _split_words(reference), WORD_ORDER)
    characters = _count_ngrams("".join(prediction.split()), "".join(reference.split()), CHARACTER_ORDER)
    # sacrebleu omits characters of a prediction where the reference is too short to have n-grams.
    return [*words, *([found if wanted else 0, wanted, both] for found, wanted, both in characters)]


def _compute_bleu(counts: list[list[int]]) -> float:
    (length, wanted_length, matches), longest = counts[0], counts[-1][0]
    # Without predictions of 4 words there is no mean of 4 precisions.
    if matches == 0 or longest == 0:
        return 0.0
    logarithms, halved = 0.0, 1.0
    for found, _, both in counts:
        halved /= 1 if both else 2
        logarithms += math.log((both or halved) / found)
    brevity = min(0.0, 1 - wanted_length / length)
    return 100 * math.exp(brevity + logarithms / len(counts))


def _compute_chrf(counts: list[list[int]]) -> float:
    used = [(both / found, both / wanted) for found, wanted, both in counts if found and wanted]
    precision, recall = (sum(each) / len(used) for each in zip(*used, strict=True)) if used else (0.0, 0.0)
    return 100 * 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0


def _split_words(text: str) -> tuple[str, ...]:
    """Split text into words and punctuation as mteval-v13a does."""
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in ENTITIES:
        text = text.replace(entity, character)
    text = f" {text} "
    for pattern, split in SPLITS:
        text = pattern.sub(split, text)
    return tuple(text.split())


def _count_ngrams(found: Sequence[str], wanted: Sequence[str], most: int) -> list[list[int]]:
    """Count the n-grams of each order: in one sequence, in the other, in both."""
    counts = []
    for n in range(1, most + 1):
        ours = Counter(found[i : i + n] for i in range(len(found) - n + 1))
        theirs = Counter(wanted[i : i + n] for i in range(len(wanted) - n + 1))
        both = sum(min(count, theirs[ngram]) for ngram, count in ours.items())
        counts.append([ours.total(), theirs.total(), both])
    return counts
