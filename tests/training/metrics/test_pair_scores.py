"""Counts of decoded pairs, by hand."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from lightning_xt.core.batch import EvaluationPairs
from lightning_xt.data.tokenizers.numbers import Numbers
from lightning_xt.data.tokenizers.special_bytes import SpecialBytes
from lightning_xt.objectives.base import Loss
from lightning_xt.training.metrics.pair_scores import PairScores
from lightning_xt.training.pair_decoding import describe_pairs

TRAINER = SimpleNamespace(strategy=SingleDeviceStrategy(device=torch.device("cpu")), world_size=1)
ENDING, ENDLESS = Numbers(9, pad=0, start=1, end=2), Numbers(9, pad=0, start=1, end=None)
NOTHING = Loss(torch.tensor(0.0), torch.tensor(0.0), torch.tensor(0))


def scores(tokenizer, limit=None, show=0):
    return PairScores(torch.device("cpu"), tokenizer, limit, show)


def batch(targets, index=None, references=None):
    width = max(map(len, targets))
    tgt = torch.tensor([[*row, *[0] * (width - len(row))] for row in targets])
    src = torch.tensor([[7, 8, 0]] * len(targets))
    index = torch.arange(len(targets)) if index is None else torch.tensor(index)
    return EvaluationPairs(src, tgt, src != 0, index, references)


@pytest.mark.parametrize(
    ("answer", "exact"),
    [
        ([5, 6, 2, 0, 0], 1.0),
        ([5, 6, 2], 1.0),
        ([5, 6, 2, 5, 6], 1.0),  # after the end nothing counts
        ([5, 6, 7, 2, 0], 0.0),
        ([5, 2, 6, 2, 0], 0.0),
        ([5, 6, 0, 0, 0], 0.0),  # never ended
        ([5, 6], 0.0),
        ([6, 5, 2], 0.0),
        ([2], 0.0),
    ],
)
def test_an_exact_answer_is_the_target_and_ends(answer, exact):
    found = scores(ENDING)
    found.compare(batch([[1, 5, 6, 2], [1, 5, 2]]), [0], torch.tensor([answer]), ENDING)
    assert found.compute(TRAINER)["exact_match"] == exact


@pytest.mark.parametrize(("answer", "exact"), [([5, 6], 1.0), ([5, 6, 4], 1.0), ([5], 0.0), ([4, 6, 5], 0.0)])
def test_without_an_end_as_much_counts_as_the_target_has(answer, exact):
    found = scores(ENDLESS)
    found.compare(batch([[1, 5, 6], [1, 5, 6, 7]]), [0], torch.tensor([answer]), ENDLESS)
    assert found.compute(TRAINER)["exact_match"] == exact


def test_an_empty_target_is_matched_by_ending_at_once():
    found = scores(ENDING)
    found.compare(batch([[1, 2], [1, 2]]), [0, 1], torch.tensor([[2, 0], [5, 2]]), ENDING)
    assert found.compute(TRAINER)["exact_match"] == 0.5


@pytest.mark.parametrize(("limit", "rows"), [(None, [0, 2, 3]), (5, [0, 3]), (1, [3]), (0, [])])
def test_rows_that_fill_up_and_those_beyond_the_limit_are_not_decoded(limit, rows):
    assert scores(ENDING, limit).select_rows(torch.tensor([4, -1, 7, 0])) == rows


def test_likelihoods_add_up():
    found = scores(ENDING)
    for nats, tokens, correct in ((6.0, 3, 1), (2.0, 5, 4)):
        loss = Loss(torch.tensor(0.0), torch.tensor(nats), torch.tensor(tokens))
        found.add(batch([[1, 5, 2]]), loss, torch.tensor(correct))
    metrics = found.compute(TRAINER)
    assert {name: value.item() for name, value in metrics.items()} == pytest.approx(
        {"loss": 1.0, "perplexity": 2.718281828, "token_accuracy": 5 / 8}
    )


def encode(text):
    return [1, *SpecialBytes().encode(text), 2]


def test_scores_of_text_are_those_of_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    # The reference is the text, not the ids, which may be cut for the model.
    references = [
        "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt.",
        "Zwei junge weiße Männer sind im Freien -- „nahe“ 3,5 Büschen!",
    ]
    answers = ["Ein Mann mit einem roten Hut, der etwas anstarrt.", "Zwei junge Männer sind im Freien in 3,5 Büschen."]
    pairs = batch([encode("Ein"), encode("Zwei")], references=references)
    found = scores(SpecialBytes())
    found.add(pairs, NOTHING, torch.tensor(0))
    for row, answer in enumerate(answers):
        found.compare(pairs, [row], torch.tensor([encode(answer)[1:]]), SpecialBytes())
    metrics = found.compute(TRAINER)
    bleu, chrf = sacrebleu.corpus_bleu(answers, [references]), sacrebleu.corpus_chrf(answers, [references])
    assert metrics["bleu"].item() == pytest.approx(bleu.score, rel=1e-6)
    assert metrics["chrf"].item() == pytest.approx(chrf.score, rel=1e-6)
    assert 10 < bleu.score < 90


def test_the_first_pairs_are_shown_in_their_order():
    found = scores(ENDING, show=2)
    pairs = batch([[1, 5, 2], [1, 6, 2], [1, 4, 2]], index=[1, 3, 0])
    found.compare(pairs, [0, 1, 2], torch.tensor([[5, 2], [6, 2], [5, 4]]), ENDING)
    assert describe_pairs(found.collect_pairs(TRAINER)) == [
        "source      7 8\ntarget      4\nprediction  5 4",
        "source      7 8\ntarget      5\nprediction  5",
    ]
