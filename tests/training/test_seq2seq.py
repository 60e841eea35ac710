"""Seq2Seq in Python, without the command line."""

import warnings
from itertools import islice

import pytest
import sacrebleu
import torch
from lightning.pytorch import Callback, Trainer
from tiny_pairs import NETWORK, write_pairs

from lightning_xt.core.batch import EvaluationPairs
from lightning_xt.data.pairs.copy_task import CopyTask
from lightning_xt.data.pairs.parallel_text import ParallelText
from lightning_xt.data.tokenizers.bpe import BPE
from lightning_xt.data.tokenizers.special_bytes import SpecialBytes
from lightning_xt.inference.translation import Translator
from lightning_xt.objectives.base import Loss
from lightning_xt.training.metrics.pair_scores import PairScores
from lightning_xt.training.metrics.text_scores import TextScores
from lightning_xt.training.seq2seq import Seq2Seq
from lightning_xt.training.step_boundaries import at_step_boundary

QUIET = {
    "log_every_n_steps": 1,
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "max_epochs": -1,
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,
    "enable_checkpointing": False,
}
PLAIN = {
    **NETWORK,
    "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 1.0, "weight_decay": 0}},
    "schedule": None,
}
"""Optimizer whose step subtracts the gradient from the weights."""
THINNED = {
    "encoder": {**NETWORK["encoder"], "dropout": 0.2},
    "decoder": {**NETWORK["decoder"], "dropout": 0.2},
    "context_dropout": 0.2,
    "optimizer": {"class_path": "AdamW", "init_args": {"lr": 0.01}},
    "schedule": {"init_args": {"warmup_steps": 2}},
}


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        # Warnings of Lightning: of jsonargparse 5, forks, and loaders without a state, which ours do not need.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*resuming from a checkpoint that ended before.*")
        yield


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder with pairs of sentences, as the current folder."""
    write_pairs(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def text(max_tokens=128, **options):
    given = {"tokenizer": SpecialBytes, "validation": 0.2, **options}
    return ParallelText("pairs.en", target_path="pairs.de", max_tokens=max_tokens, **given)


def numbers(**options):
    given = {"num_symbols": 5, "min_length": 2, "max_length": 5, "batch_size": 3, "validation_size": 7, **options}
    return CopyTask("reverse", **given)


def build(config, data, seed=3):
    torch.manual_seed(seed)
    model = Seq2Seq.from_config({**config, "vocab": data.vocab})
    # A head of zeros would pass no gradient.
    torch.nn.init.normal_(model.network.decoder.head.to_logits.weight, std=0.5)
    return model


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def fit(model, data, steps, *, processes=1, callbacks=(), ckpt_path=None, **options):
    strategy = {"devices": processes, "strategy": "auto" if processes == 1 else "ddp_fork"}
    trainer = Trainer(max_steps=steps, callbacks=list(callbacks), **{**QUIET, **strategy, **options})
    trainer.fit(model, data, ckpt_path=ckpt_path)
    return trainer


def split_rows(batch):
    """Yield the pairs of a batch one by one, each without its padding."""
    for src, tgt, mask in zip(batch.src, batch.tgt, batch.src_mask, strict=True):
        yield src[mask][None], tgt[tgt != 0][None]


def sum_likelihood(model, batches):
    """Return nats and number of the target tokens, pair by pair."""
    total, count = torch.zeros(()), 0
    for batch in batches:
        for src, tgt in split_rows(batch):
            chances = model.network(src, tgt[:, :-1])[0].softmax(dim=-1)
            total = total - sum(chances[t, token].log() for t, token in enumerate(tgt[0, 1:].tolist()))
            count += tgt.shape[1] - 1
    return total, count


def first_batches(data, count):
    data.setup("fit")
    return list(islice(iter(data.train_dataloader()), count))


def test_the_loss_is_the_mean_over_real_target_tokens(folder):
    data = text()
    model = build(NETWORK, data).double().eval()
    (batch,) = first_batches(data, 1)
    assert not batch.src_mask.all() and (batch.tgt == 0).any()
    nats, count = sum_likelihood(model, [batch])
    torch.testing.assert_close(model.loss(*batch), nats / count)
    # Without a mask there is no padding.
    src, tgt = next(split_rows(batch))
    torch.testing.assert_close(model.loss(src, tgt), model.loss(src, tgt, torch.ones_like(src, dtype=torch.bool)))


def test_label_smoothing_is_for_training_alone(folder):
    data = text()
    batch = first_batches(data, 1)[0]
    smoothed = build({**NETWORK, "objective": {"init_args": {"label_smoothing": 0.3}}}, data)
    plain = build(NETWORK, data)
    assert torch.equal(smoothed.eval().loss(*batch), plain.eval().loss(*batch))
    assert not torch.equal(smoothed.train().loss(*batch), plain.train().loss(*batch))


class Norms(Callback):
    def __init__(self):
        self.found = []

    def on_train_batch_end(self, trainer, *_):
        self.found.append(float(trainer.callback_metrics.get("optim/grad_norm", 0)))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_takes_the_gradient_of_the_mean_over_all_its_tokens(folder, accumulate):
    data = text()
    batches = first_batches(data, accumulate)
    sizes = {int((batch.tgt[:, 1:] != 0).sum()) for batch in batches}
    assert len(sizes) == accumulate
    model = build(PLAIN, data).double()
    nats, count = sum_likelihood(model, batches)
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(nats / count, parameters)
    before, norms = weights(model), Norms()
    options = {"accumulate_grad_batches": accumulate, "precision": "64-true", "callbacks": [norms]}
    fit(model, text(), 1, **options)
    after = weights(model)
    for name, gradient in zip(names, gradients, strict=True):
        torch.testing.assert_close(before[name] - after[name], gradient, rtol=1e-6, atol=1e-9)
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
    assert norms.found[-1] == pytest.approx(norm, rel=1e-6)
    # Clipping sees it too.
    model.load_state_dict(before)
    fit(model, text(), 1, gradient_clip_val=norm / 4, **options)
    clipped = weights(model)
    for name, gradient in zip(names, gradients, strict=True):
        torch.testing.assert_close(before[name] - clipped[name], gradient / 4, rtol=1e-5, atol=1e-9)


def test_processes_change_nothing_of_a_step(folder):
    found = []
    for processes, max_tokens in ((1, 128), (2, 64)):
        data = text(max_tokens)
        model = build(PLAIN, data).double()
        options = {"precision": "64-true", "gradient_clip_val": 0.5, "limit_val_batches": 0}
        fit(model, data, 3, processes=processes, **options)
        found.append(weights(model))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-9)
    name = "network.encoder.token_embedding.weight"
    assert not torch.equal(found[0][name], build(PLAIN, text()).double().state_dict()[name])


def test_what_an_interrupted_step_has_counted_is_forgotten(folder):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, *_):
            raise RuntimeError("stopped within a step")

    found = []
    for interrupted in (True, False):
        data = text()
        model = build(PLAIN, data).double()
        before = weights(model)
        if interrupted:
            with pytest.raises(RuntimeError, match="stopped within a step"):
                fit(model, data, 1, accumulate_grad_batches=2, precision="64-true", callbacks=[Stop()])
            assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        fit(model, text(), 1, accumulate_grad_batches=2, precision="64-true")
        found.append(weights(model))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


class Losses(Callback):
    def __init__(self):
        self.found = []

    def on_train_batch_end(self, trainer, *_):
        # The loss of a step is known when all its batches are done.
        if at_step_boundary(trainer):
            self.found.append((trainer.global_step, float(trainer.callback_metrics["train/loss"])))


class Stop(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 3:
            trainer.should_stop = True


@pytest.mark.parametrize(
    ("data", "accumulate"), [(text, 2), (numbers, 2), pytest.param(text, 1, marks=pytest.mark.slow)]
)
def test_a_resumed_run_equals_the_uninterrupted_one(folder, data, accumulate):
    options = {"accumulate_grad_batches": accumulate, "gradient_clip_val": 0.5}

    def part_of_a_run(steps, callbacks, **more):
        found = Losses()
        torch.manual_seed(5 if "ckpt_path" not in more else 99)
        return fit(more.pop("model"), data(), steps, callbacks=[*callbacks, found], **options, **more), found.found

    whole = build(THINNED, data())
    _, expected = part_of_a_run(6, [], model=whole)
    part = build(THINNED, data())
    trainer, first = part_of_a_run(6, [Stop()], model=part)
    trainer.save_checkpoint("part.ckpt")
    resumed = Seq2Seq.load_from_checkpoint("part.ckpt", weights_only=True)
    assert first == expected[: len(first)]
    _, second = part_of_a_run(6, [], model=resumed, ckpt_path="part.ckpt")
    assert second == expected[len(first) :]
    assert len(second) == 3
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())
    assert not all(torch.equal(value, whole.state_dict()[name]) for name, value in part.state_dict().items())


def test_a_checkpoint_alone_translates(folder):
    data = text(tokenizer=lambda: BPE(280), shared_tokenizer=False)
    model = Seq2Seq.from_config({**THINNED, "vocab": data.vocab})
    fit(model, data, 3).save_checkpoint("x.ckpt")
    asked = [{"id": 0, "text": "a red dog runs", "problem": None}]
    expected = model.eval().predict_step(asked, 0)
    for file in folder.glob("pairs.*"):
        file.unlink()
    loaded = Seq2Seq.load_from_checkpoint("x.ckpt", weights_only=True).eval()
    assert loaded.source_tokenizer.init_args == data.source_tokenizer.init_args
    assert loaded.target_tokenizer.init_args == data.target_tokenizer.init_args
    assert loaded.source_tokenizer.init_args != loaded.target_tokenizer.init_args
    assert loaded.predict_step(asked, 0) == expected
    pieces = loaded.text_generator.stream_text("a red dog runs", loaded.sampling)
    assert "".join(piece.text for piece in pieces) == expected[0]["text"]


def test_from_config_without_a_vocabulary_reads_bytes():
    model = Seq2Seq.from_config(NETWORK)
    assert model.vocab == {"source": 259, "target": 259, "pad": 0, "start": 1, "end": 2, "separator": None}
    assert type(model.source_tokenizer) is SpecialBytes
    assert type(model.target_tokenizer) is SpecialBytes


def test_options_out_of_range():
    with pytest.raises(
        ValueError, match=r"model\.val_decode_pairs is -1; it must be at least 0 pairs, or null for all"
    ):
        Seq2Seq.from_config({**NETWORK, "val_decode_pairs": -1})
    with pytest.raises(ValueError, match=r"model\.vocab: source is None; it must be the number of different tokens"):
        Seq2Seq({"source": None, "target": 5})
    with pytest.raises(ValueError, match=r"model\.vocab: target is None; it must be the number of different tokens"):
        Seq2Seq({"source": 5, "target": None})


def test_what_is_compiled_is_what_trains(folder, monkeypatch):
    calls = []

    def counted(network, options, device, accumulated, sharded):
        def forward(*args, **kwargs):
            calls.append(network.training)
            return network(*args, **kwargs)

        return forward

    plain = build(THINNED, text())
    fit(plain, text(), 3, precision="bf16-mixed")
    monkeypatch.setattr("lightning_xt.training.module.compile_forward", counted)
    model = build({**THINNED, "compile": True}, text())
    fit(model, text(), 3, precision="bf16-mixed")
    assert calls == [True] * 3
    for name, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_a_source_of_padding_has_no_loss():
    model = Seq2Seq.from_config(NETWORK)
    src, tgt = torch.full((2, 3), 7), torch.full((2, 4), 7)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    with pytest.raises(ValueError, match="a source is empty, or all of it is padding; give each at least one token"):
        model.loss(src, tgt, mask)


def test_scores_of_a_model_in_16_bits_are_counted_in_32(folder):
    torch.set_default_dtype(torch.bfloat16)
    try:
        scores = PairScores(torch.device("cpu"), SpecialBytes(), None, 0)
        loss = Loss(torch.tensor(1.0), torch.tensor(1.0), torch.tensor(1))
        ids = torch.tensor([[1, 70, 71, 72, 2]])
        pairs = EvaluationPairs(ids, ids, ids > 0, torch.tensor([0]), ["word " * 8])
        scores.add(pairs, loss, torch.tensor(3))
        for _ in range(100):
            scores.text_scores.update(["one two three four five"], ["one two three four six"])
    finally:
        torch.set_default_dtype(torch.float32)
    assert scores.text_scores.counts[0].tolist() == [500, 500, 400]
    one = TextScores()
    one.update(["one two three four five"], ["one two three four six"])
    assert scores.text_scores.compute() == one.compute()


# Metrics.


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Train weights that translate some of the sentences."""
    folder = tmp_path_factory.mktemp("learned")
    write_pairs(folder)
    data = ParallelText(
        str(folder / "pairs.en"), target_path=str(folder / "pairs.de"), max_tokens=512, tokenizer=SpecialBytes
    )
    config = {**NETWORK, "optimizer": {"class_path": "AdamW", "init_args": {"lr": 0.01}}, "schedule": None}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        model = build(config, data)
        fit(model, data, 250, limit_val_batches=0)
    return model.double().state_dict()


def split(data):
    """Return the validation pairs in their order, without their padding."""
    data.setup("validate")
    pairs = {}
    for batch in data.val_dataloader():
        for row, (src, tgt) in enumerate(split_rows(batch)):
            if (number := int(batch.index[row])) >= 0:
                pairs[number] = (src, tgt, None if batch.references is None else batch.references[row])
    return [pairs[number] for number in sorted(pairs)]


def decode_greedily(model, src, most):
    """Decode greedily, without a cache."""
    found = [1]
    while len(found) <= most and found[-1] != 2:
        found.append(int(model.network(src, torch.tensor([found]))[0, -1].argmax()))
    return found[1:]


@pytest.fixture(scope="module")
def naive(learned, tmp_path_factory):
    """Return each validation pair's nats, right tokens, tokens, exactness, translation and reference."""
    folder = tmp_path_factory.mktemp("naive")
    write_pairs(folder)
    paths = {"path": str(folder / "pairs.en"), "target_path": str(folder / "pairs.de")}
    data = ParallelText(**paths, max_tokens=512, validation=0.4, tokenizer=SpecialBytes)
    model = Seq2Seq.from_config({**NETWORK, "vocab": data.vocab}).double().eval()
    model.load_state_dict(learned)
    found = []
    with torch.no_grad():
        for src, tgt, reference in split(data):
            logits, target = model.network(src, tgt[:, :-1])[0], tgt[0, 1:]
            nats = -sum(logits.log_softmax(-1)[t, token].item() for t, token in enumerate(target.tolist()))
            correct = int((logits.argmax(-1) == target).sum())
            answer = decode_greedily(model, src, 2 * src.shape[1] + 32)
            text = data.target_tokenizer.decode(answer)
            found.append((nats, correct, len(target), answer == target.tolist(), text, reference))
    return found


def measure(model, data, processes=1, test=False):
    strategy = {"devices": processes, "strategy": "auto" if processes == 1 else "ddp_fork"}
    trainer = Trainer(**{**QUIET, **strategy}, precision="64-true")
    (metrics,) = (trainer.test if test else trainer.validate)(model, data, verbose=False)
    return metrics


def validate(options, config):
    data = text(**options)
    model = Seq2Seq.from_config({**NETWORK, **config, "vocab": data.vocab}).double()
    return model, data


@pytest.mark.parametrize(
    ("val_decode_pairs", "processes", "max_tokens"),
    [(None, 1, 64), (5, 1, 4096), (5, 2, 64), pytest.param(None, 2, 4096, marks=pytest.mark.slow)],
)
def test_validation_equals_a_naive_loop(folder, learned, naive, val_decode_pairs, processes, max_tokens):
    nats, correct, tokens, _, _, _ = zip(*naive, strict=True)
    _, _, _, exact, texts, references = zip(*naive[:val_decode_pairs], strict=True)
    expected = {"loss": sum(nats) / sum(tokens), "token_accuracy": sum(correct) / sum(tokens)}
    expected["exact_match"] = sum(exact) / len(exact)
    assert 0 < expected["exact_match"] < 1 and 0.5 < expected["token_accuracy"] < 1
    options = {"max_tokens": max_tokens, "validation": 0.4}
    model, data = validate(options, {"val_decode_pairs": val_decode_pairs})
    model.load_state_dict(learned)
    metrics = measure(model, data, processes)
    assert {name for name in metrics if name.startswith("val/")} == {
        f"val/{name}" for name in (*expected, "perplexity", "bleu", "chrf")
    }
    for name, value in expected.items():
        assert metrics[f"val/{name}"] == pytest.approx(value, rel=1e-6), name
    assert metrics["val/perplexity"] == pytest.approx(torch.tensor(expected["loss"]).exp().item(), rel=1e-6)
    bleu, chrf = sacrebleu.corpus_bleu(texts, [references]), sacrebleu.corpus_chrf(texts, [references])
    assert metrics["val/bleu"] == pytest.approx(bleu.score, rel=1e-6)
    assert metrics["val/chrf"] == pytest.approx(chrf.score, rel=1e-6)
    assert 0 < metrics["val/chrf"] < 100


def test_the_test_split_is_decoded_whole(folder, learned):
    model, data = validate({"test": 0.4, "validation": 0.2}, {"val_decode_pairs": 1})
    model.load_state_dict(learned)
    data.setup("test")
    references = [text for batch in data.test_dataloader() for text in batch.references]
    rows, complete = [], Translator.complete
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Translator, "complete", lambda self, some, options: rows.append(len(some)) or complete(self, some, options)
        )
        metrics = measure(model, data, test=True)
        assert sum(rows) == len(references) == 24
        rows.clear()
        measure(model, data)
        assert sum(rows) == 1
    assert {"test/loss", "test/token_accuracy", "test/exact_match", "test/bleu", "test/chrf"} <= set(metrics)


def test_nothing_is_decoded_where_nothing_is_asked_for(folder):
    model, data = validate({}, {"val_decode_pairs": 0})
    assert set(measure(model, data)) == {"val/loss", "val/perplexity", "val/token_accuracy"}


@pytest.mark.parametrize("processes", [1, 2])
def test_sequences_of_numbers_have_no_scores_of_text(processes):
    data = numbers(eval_batch_size=2)
    torch.manual_seed(0)
    model = Seq2Seq.from_config({**NETWORK, "vocab": data.vocab}).double()
    torch.nn.init.normal_(model.network.decoder.head.to_logits.weight, std=0.5)
    metrics = measure(model, data, processes)
    assert set(metrics) == {"val/loss", "val/perplexity", "val/token_accuracy", "val/exact_match"}
    nats, count = sum_likelihood(model, list(numbers().val_dataloader()))
    assert metrics["val/loss"] == pytest.approx(nats.item() / count, rel=1e-6)
