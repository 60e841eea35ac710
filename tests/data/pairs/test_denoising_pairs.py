"""Pairs of a corrupted text: their windows, their order, their evaluation, and how a model learns from them."""

from collections import Counter
from functools import partial
from itertools import islice

import pytest
import torch

from lightning_xt.cli import main
from lightning_xt.data.denoisers.sequential_denoising import SequentialDenoising
from lightning_xt.data.denoisers.span_corruption import SpanCorruption
from lightning_xt.data.denoisers.text_infilling import TextInfilling
from lightning_xt.data.pairs.denoising_pairs import DenoisingPairs
from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.data.tokenizers.bpe import BPE

TEXT = "".join(f"{number} times {number} is {number * number}; " for number in range(90))
MIXTURE = [
    partial(SpanCorruption, mode="R"),
    partial(SequentialDenoising, mode="S"),
    partial(SpanCorruption, mode="X", fraction=0.5, mean_length=6.0),
]


@pytest.fixture
def corpus(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    return partial(TextFiles, str(file), seq_len=40, batch_size=6, eval_batch_size=4, test=0.1, validation=0.1)


def restore(tokenizer, src, tgt):
    """Return the mode and the text of a pair of ids."""
    source, target = tokenizer.decode(src), tokenizer.decode(tgt)
    mode = source[:3] if source[:1] == "[" else ""
    for piece in target.split("<extra_id_")[1:]:
        number, _, span = piece.partition(">")
        assert source.count(f"<extra_id_{number}>") == 1
        source = source.replace(f"<extra_id_{number}>", span)
    return mode, source.removeprefix(mode)


def take(data, count):
    return [row for batch in islice(data.train_dataloader(), count) for row in zip(*batch, strict=True)]


def test_pairs_restore_windows_of_the_text(corpus):
    data = DenoisingPairs(corpus, denoisers=MIXTURE)
    modes = Counter()
    for batch in islice(data.train_dataloader(), 5):
        assert batch.src.shape == batch.src_mask.shape and len(batch.src) == len(batch.tgt) == 6
        for src, tgt, real in zip(*batch, strict=True):
            ids = src[real].tolist()
            assert ids[-1] == 2 and tgt[0] == 1 and tgt[tgt != 0][-1] == 2 and not src[~real].any()
            mode, text = restore(data.source_tokenizer, ids, tgt.tolist())
            assert len(text) == 40 and text in TEXT
            modes[mode] += 1
            assert len(ids) <= data.longest[0] and int((tgt != 0).sum()) - 1 <= data.longest[1]
    assert set(modes) == {"[R]", "[S]", "[X]"}
    assert data.vocab == {"source": 362, "target": 362, "pad": 0, "start": 1, "end": 2, "separator": None}
    assert data.trained_length == data.longest[0] == 42


def test_a_pair_is_a_pure_function_of_its_number(corpus):
    data = DenoisingPairs(corpus, denoisers=MIXTURE)
    ids = [src[real].tolist() for src, _, real in take(data, 4)]
    # Two processes of three pairs each, and a run that has seen six.
    halves = DenoisingPairs(partial(corpus, batch_size=3), denoisers=MIXTURE)
    split = [take(halves.for_process(rank, 2), 4) for rank in (0, 1)]
    joined = [row for step in range(4) for rows in split for row in rows[3 * step : 3 * step + 3]]
    assert [src[real].tolist() for src, _, real in joined] == ids
    later = DenoisingPairs(corpus, denoisers=MIXTURE)
    later.load_state_dict({"samples_seen": 6, "hash": data.content_hash})
    assert [src[real].tolist() for src, _, real in take(later, 3)] == ids[6:]
    assert later.samples_after(6, 3) == 24


def test_the_seeds_choose_corruptions_and_windows(corpus):
    def draw(seed, corpus_seed):
        data = DenoisingPairs(partial(corpus, seed=corpus_seed), seed=seed)
        rows = [(src[real].tolist(), tgt.tolist()) for src, tgt, real in take(data, 2)]
        return rows, [restore(data.source_tokenizer, *row)[1] for row in rows]

    first, windows = draw(0, 0)
    assert draw(0, 0) == (first, windows)
    other, same = draw(1, 0)
    assert other != first and same == windows
    assert draw(0, 1)[1] != windows


def test_weights_choose_denoisers(corpus):
    denoisers = [partial(SequentialDenoising, mode="a", weight=3.0), partial(SequentialDenoising, mode="b")]
    data = DenoisingPairs(partial(corpus, batch_size=2000), denoisers=denoisers)
    batch = next(iter(data.train_dataloader()))
    found = (batch.src[:, 0] == data.source_tokenizer.find_mode("a")).double().mean()
    assert float(found) == pytest.approx(0.75, abs=0.05)


def test_evaluation_covers_a_split_and_never_changes(corpus):
    data, other = (DenoisingPairs(corpus, denoisers=MIXTURE, seed=seed) for seed in (0, 5))
    rows = {}
    for batch, same in zip(data.test_dataloader(), other.test_dataloader(), strict=True):
        assert torch.equal(batch.src, same.src) and torch.equal(batch.tgt, same.tgt)
        for number, src, tgt, real in zip(batch.index.tolist(), batch.src, batch.tgt, batch.src_mask, strict=True):
            rows[number] = restore(data.source_tokenizer, src[real].tolist(), tgt.tolist())[1]
    assert "".join(rows[number] for number in range(len(rows))) == TEXT[len(TEXT) - int(0.1 * len(TEXT)) :]
    assert len(rows[len(rows) - 1]) < 40
    parts = [list(data.for_process(rank, 2).test_dataloader()) for rank in (0, 1)]
    assert len(parts[0]) == len(parts[1])
    counted = [number for part in parts for batch in part for number in batch.index.tolist() if number >= 0]
    assert sorted(counted) == list(range(len(rows)))
    assert data.has_split("validation") and not DenoisingPairs(partial(corpus, test=0)).has_split("test")


def test_infilling_needs_one_sentinel(corpus):
    data = DenoisingPairs(corpus, denoisers=[TextInfilling], num_sentinels=1)
    src, tgt, real = take(data, 1)[0]
    assert "<extra_id_0>" in data.source_tokenizer.decode(src[real].tolist())
    assert data.target_tokenizer.decode(tgt.tolist()) in TEXT


def test_the_hash_knows_text_and_denoisers(corpus):
    made = [
        DenoisingPairs(corpus),
        DenoisingPairs(corpus, denoisers=MIXTURE),
        DenoisingPairs(corpus, denoisers=[partial(SpanCorruption, fraction=0.2)]),
        DenoisingPairs(corpus, num_sentinels=99),
        DenoisingPairs(partial(corpus, validation=0.2)),
    ]
    assert len({data.content_hash for data in made}) == len(made)
    assert DenoisingPairs(corpus).content_hash == made[0].content_hash
    assert made[0].describe_size(2) == f"{len(TEXT) - 2 * int(0.1 * len(TEXT)):,} tokens, 480 tokens a step"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"denoisers": []}, "--data.denoisers is empty; give at least one, such as SpanCorruption"),
        (
            {"num_sentinels": 1},
            "--data.denoisers: SpanCorruption needs up to 2 sentinels for windows of 40 tokens, but "
            "--data.num_sentinels is 1; set --data.num_sentinels 2 or more",
        ),
        ({"denoisers": ["SpanCorruption"]}, "denoisers has the name 'SpanCorruption'; from Python pass the class"),
    ],
)
def test_refuses_invalid_options(corpus, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        DenoisingPairs(corpus, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokenizer": BPE}, "--data.corpus.tokenizer is BPE, but denoising reads bytes; omit it"),
        ({"stride": 9}, "--data.corpus.stride is 9, which denoising does not use; omit it"),
        ({"order": "lanes"}, "--data.corpus.order is lanes, which denoising does not use; omit it"),
        ({"resident": False}, "--data.corpus.resident is False, which denoising does not use; omit it"),
        ({"eval_lanes": 4}, "--data.corpus.eval_lanes is 4, which denoising does not use; omit it"),
        ({"predict_prompts": "x"}, "--data.corpus.predict_prompts is x, which denoising does not use; omit it"),
        ({"documents": "separator"}, "--data.corpus separates documents, .*; omit --data.corpus.documents"),
        ({"batch_size": 0}, "TextFiles has --data.corpus.batch_size 0, which must be at least 1"),
    ],
)
def test_options_of_the_corpus_are_refused_as_they_are_typed(corpus, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        DenoisingPairs(partial(corpus, **options))


def test_errors_of_the_text_name_the_options_of_the_corpus(corpus, tmp_path):
    missing = DenoisingPairs(partial(TextFiles, str(tmp_path / "none.txt")))
    with pytest.raises(FileNotFoundError, match=r"^--data.corpus.path .*none.txt: no such file"):
        missing.setup("fit")
    with pytest.raises(ValueError, match=r"^--data.corpus.seq_len 9999 needs at least 10000 tokens in a split"):
        DenoisingPairs(partial(corpus, seq_len=9999), num_sentinels=1000).setup("fit")
    with pytest.raises(ValueError, match=r"^--data.corpus TextFiles has no test split; .* --data.corpus.test$"):
        DenoisingPairs(partial(corpus, test=0)).setup("test")


def test_a_misspelled_denoiser_is_offered(tmp_path, capsys):
    assert main(["fit", "-c", "denoising/span_corruption.yaml", "--data.denoisers", "[TextInfiling]"]) == 2
    assert (
        "--data.denoisers: unknown Denoiser class 'TextInfiling'; did you mean TextInfilling?"
        in capsys.readouterr().err
    )
    assert main(["fit", "-c", "denoising/span_corruption.yaml", "--data.corpus", "TextFile"]) == 2
    assert "--data.corpus: unknown TextCorpus class 'TextFile'; did you mean TextFiles?" in capsys.readouterr().err
