"""Evaluations that run compiled: which ones, which batches, and by which commands."""

import warnings
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Trainer

from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.training import compilation, evaluation_forward
from lightning_xt.training.evaluation_forward import EvaluationForward, is_long
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.masked_language_model import MaskedLanguageModel
from lightning_xt.training.seq2seq import Seq2Seq

LAYERS = {"dim": 8, "depth": 1, "attention": {"heads": 2}}
QUIET = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False, "num_sanity_val_steps": 0}
QUIET |= {"enable_model_summary": False, "enable_checkpointing": False, "log_every_n_steps": 1}
ROWS = 3


@pytest.fixture(autouse=True)
def corpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # 56 bytes are validated, in windows of 8.
    (tmp_path / "corpus.txt").write_bytes(bytes(range(32, 112)) * 7)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        yield


@pytest.fixture
def calls(monkeypatch):
    """Shapes that each compiled function was called with, one list a function; what it computes is not changed."""
    made = []

    def compile(function, **keywords):
        assert "evaluation" not in keywords
        made.append([])
        shapes = made[-1]

        def run(tokens, **options):
            shapes.append(tuple(tokens.shape))
            return function(tokens, **options)

        return run

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(compilation, "_find_obstacle", lambda device: None)
    monkeypatch.setattr(evaluation_forward, "LONG", {"cpu": 1})
    return made


def data():
    return TextFiles("corpus.txt", seq_len=8, batch_size=2, eval_batch_size=ROWS, validation=0.1, test=0.1)


def build(kind=LanguageModel, **options):
    torch.manual_seed(0)
    return kind.from_config({"decoder" if kind is LanguageModel else "encoder": LAYERS, "compile": True, **options})


def fit(model, **options):
    trainer = Trainer(max_steps=2, val_check_interval=1, check_val_every_n_epoch=None, **QUIET | options)
    trainer.fit(model, data())
    return trainer


@pytest.mark.parametrize("kind", [LanguageModel, MaskedLanguageModel])
def test_full_batches_run_compiled_in_every_command(calls, kind):
    model = build(kind)
    trainer = fit(model)
    # One function for training, one for all validations.
    trained, validated = calls
    assert trained == [(2, 8)] * 2
    # Seven windows: the last batch has one, and would need another program.
    assert validated == [(ROWS, 8)] * 2 * 2
    found = trainer.callback_metrics["val/loss"]
    for name in ("validate", "test"):
        other = Trainer(**QUIET)
        (metrics,) = getattr(other, name)(model, data(), verbose=False)
        assert calls.pop() == [(ROWS, 8)] * 2
        if name == "validate":
            assert metrics["val/loss"] == float(found)
    assert len(calls) == 2


def test_short_evaluations_run_uncompiled(calls, monkeypatch):
    model = build()
    parameters = sum(each.numel() for each in model.parameters())
    # All three batches count as full ones.
    flops = 2 * parameters * 3 * ROWS * 8
    for least, programs in ((flops + 1, 1), (flops, 2)):
        calls.clear()
        monkeypatch.setattr(evaluation_forward, "LONG", {"cpu": least})
        fit(model)
        assert len(calls) == programs


def test_the_option_decides_whatever_the_length(calls, monkeypatch):
    for least, wanted, programs in ((1, False, 1), (1e30, True, 2), (1e30, None, 1), (1, None, 2)):
        calls.clear()
        monkeypatch.setattr(evaluation_forward, "LONG", {"cpu": least})
        fit(build(compile={"evaluation": wanted}))
        assert len(calls) == programs


def test_an_unknown_value_of_the_option_is_refused():
    with pytest.raises(ValueError, match=r"model\.compile\.evaluation is 'long'; choose from null, True, False$"):
        build(compile={"evaluation": "long"})


def test_a_translator_compiles_no_evaluation():
    with pytest.raises(ValueError, match=r"compile\.evaluation is true, but evaluations of a Seq2Seq are not compiled"):
        Seq2Seq.from_config({"encoder": LAYERS, "decoder": LAYERS, "compile": {"evaluation": True}})


def test_an_evaluation_of_unknown_length_is_short():
    assert not is_long(torch.nn.Linear(2, 2), float("inf"), torch.device("cpu"))
    assert is_long(torch.nn.Linear(2, 2), 1e13, torch.device("cpu"))
    assert not is_long(torch.nn.Linear(2, 2), 1e13, torch.device("meta"))


def test_without_compile_nothing_is_compiled(calls):
    fit(build(compile=False))
    assert calls == []


def test_another_network_runs_uncompiled(calls):
    model = build()
    model.decoding = replace(model.decoding, network=build().decoder)
    Trainer(**QUIET).validate(model, data(), verbose=False)
    assert calls == []


def test_without_a_compiler_evaluations_continue(calls, monkeypatch):
    monkeypatch.setattr(compilation, "_find_obstacle", lambda device: "nothing compiles here")
    with pytest.warns(UserWarning, match="model.compile is on, but nothing compiles here: evaluating without it"):
        Trainer(**QUIET).validate(build(), data(), verbose=False)
    # A fit has said so when it began.
    with pytest.warns(UserWarning, match="nothing compiles here: training without it") as said:
        fit(build())
    assert sum("nothing compiles" in str(each.message) for each in said) == 1
    assert calls == []


def test_later_evaluations_run_the_same_program(calls):
    network, tokens = torch.nn.Embedding(5, 2), torch.zeros(2, 4, dtype=torch.long)
    forward = EvaluationForward({"dynamic": False}, network)
    for _ in range(2):
        forward.begin(1, compiles=True)
        assert torch.equal(forward(tokens), network(tokens))
    assert calls == [[(2, 4)] * 2]
