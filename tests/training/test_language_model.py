"""LanguageModel in Python, without the command line."""

import math
import warnings
from types import SimpleNamespace

import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer

from lightning_xt.data.text.text_files import TextFiles
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.models.decoder import Decoder
from lightning_xt.training import compilation
from lightning_xt.training.language_model import LanguageModel

CONFIG = {
    "decoder": {"dim": 8, "depth": 1, "dropout": 0.2, "attention": {"heads": 2, "position": "ALiBi"}},
    "optimizer": {"class_path": "AdamW", "init_args": {"lr": 0.01}},
    "schedule": {"init_args": {"warmup_steps": 2}},
}
QUIET = {
    "log_every_n_steps": 1,
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "max_epochs": -1,
    "num_sanity_val_steps": 0,
}


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        # Warnings of Lightning: of jsonargparse 5, and of loaders without a state, which ours do not need.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*resuming from a checkpoint that ended before.*")
        warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
        yield


def data(**options):
    return TextFiles("corpus.txt", seq_len=8, batch_size=2, **options)


def fit(model, steps, ckpt_path=None, callbacks=(), **options):
    torch.manual_seed(5 if ckpt_path is None else 99)
    trainer = Trainer(max_steps=steps, callbacks=list(callbacks), enable_checkpointing=False, **QUIET | options)
    trainer.fit(model, data(), ckpt_path=ckpt_path)
    return trainer


def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(left.state_dict().values(), right.state_dict().values(), strict=True))


def build(seed=3):
    torch.manual_seed(seed)
    return LanguageModel.from_config(CONFIG)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_equals_the_uninterrupted_one(folder, accumulate):
    options = {"accumulate_grad_batches": accumulate, "gradient_clip_val": 0.5}
    whole = build()
    fit(whole, 6, **options)

    class Stop(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 3:
                trainer.should_stop = True

    part = build()
    fit(part, 6, callbacks=[Stop()], **options).save_checkpoint("part.ckpt")
    resumed = LanguageModel.load_from_checkpoint("part.ckpt", weights_only=True)
    assert same(resumed, part)
    assert not same(resumed, whole)
    fit(resumed, 6, ckpt_path="part.ckpt", **options).save_checkpoint("resumed.ckpt")
    assert same(resumed, whole)
    again = LanguageModel.load_from_checkpoint("resumed.ckpt", weights_only=True)
    assert again.hparams["decoder"]["init_args"]["dim"] == 8


def test_checkpoints_hold_plain_values(folder):
    fit(build(), 3).save_checkpoint("x.ckpt")
    checkpoint = torch.load("x.ckpt", weights_only=True)
    assert checkpoint["lightning_xt"]["format"] == 2
    assert checkpoint["hyper_parameters"]["vocab"]["target"] == 256
    position = checkpoint["hyper_parameters"]["decoder"]["init_args"]["attention"]["init_args"]["position"]
    assert position["class_path"].endswith("ALiBi")


def test_an_instance_does_not_load_a_checkpoint(folder):
    with pytest.raises(TypeError, match="cannot be called on an instance"):
        build().load_from_checkpoint("x.ckpt")


class Shouting(Bytes):
    """Tokenizer that is not the default one."""

    def decode(self, ids):
        return super().decode(ids).upper()


def test_a_checkpoint_brings_its_tokenizer(folder):
    corpus = data(tokenizer=Shouting)
    Trainer(max_steps=3, enable_checkpointing=False, **QUIET).fit(model := build(), corpus)
    model.trainer.save_checkpoint("x.ckpt")
    assert LanguageModel.load_from_checkpoint("x.ckpt", weights_only=True).tokenizer.decode([97]) == "A"
    checkpoint = torch.load("x.ckpt", weights_only=True)
    checkpoint["lightning_xt"]["tokenizers"]["text"]["class_path"] = "no_such_module.Words"
    torch.save(checkpoint, "x.ckpt")
    with pytest.raises(ValueError, match=r"tokenizer no_such_module\.Words cannot be imported"):
        LanguageModel.load_from_checkpoint("x.ckpt", weights_only=True)


def test_a_checkpoint_of_a_later_format_is_refused(folder):
    fit(build(), 3).save_checkpoint("x.ckpt")
    checkpoint = torch.load("x.ckpt", weights_only=True)
    checkpoint["lightning_xt"] |= {"format": 3, "version": "9.0"}
    torch.save(checkpoint, "x.ckpt")
    with pytest.raises(ValueError, match=r"has format 3, but .* it was written by version 9\.0"):
        LanguageModel.load_from_checkpoint("x.ckpt", weights_only=True)


@pytest.mark.parametrize("optimizer", [torch.optim.Muon, torch.optim.LBFGS, lambda groups: torch.optim.Muon(groups)])
def test_an_optimizer_that_refuses_the_parameters_is_named(folder, optimizer):
    model = LanguageModel(
        dict.fromkeys(("source", "target"), 256),
        decoder=lambda size: Decoder(size, dim=16, depth=1),
        optimizer=optimizer,
    )
    with pytest.raises(ValueError, match=f"optimizer: {optimizer.__name__} cannot be built for this model: "):
        fit(model, 3)


def test_a_module_of_live_objects_checkpoints_its_weights(folder):
    model = LanguageModel(dict.fromkeys(("source", "target"), 256), decoder=lambda size: Decoder(size, dim=16, depth=1))
    model.schedule_factory = None
    fit(model, 2).save_checkpoint("x.ckpt")
    checkpoint = torch.load("x.ckpt", weights_only=True)
    assert not checkpoint.get("hyper_parameters")


@pytest.mark.parametrize("form", [lambda c: c, lambda c: {"model": c}, lambda c: {"class_path": "L", "init_args": c}])
def test_all_forms_of_a_config_are_read(form, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(form(CONFIG)))
    for config in (form(CONFIG), file, str(file)):
        assert LanguageModel.from_config(config).decoder.head.to_logits.weight.shape == (256, 8)


def test_mistakes_in_a_config_are_named(tmp_path):
    with pytest.raises(ValueError, match="decodr"):
        LanguageModel.from_config({"decodr": 3})
    with pytest.raises(FileNotFoundError, match=r"no\.yaml: .*no such file"):
        LanguageModel.from_config("no.yaml")
    with pytest.raises(ValueError, match="a mapping of options, not list"):
        LanguageModel.from_config([])


def test_the_first_loss_is_that_of_uniform_predictions():
    loss = build().eval().loss(torch.randint(256, (2, 9)))
    assert loss.item() == pytest.approx(math.log(256), rel=1e-5)  # the head starts at zero


@pytest.mark.parametrize(("batch_size", "stride"), [(1, None), (7, None), (3, 3), (64, 1)])
def test_evaluation_equals_a_naive_loop(folder, batch_size, stride):
    model = build().double()
    torch.nn.init.normal_(model.decoder.head.to_logits.weight)
    corpus = data(eval_batch_size=batch_size, stride=stride, validation=0.13)
    (metrics,) = Trainer(**QUIET, enable_checkpointing=False, precision="64-true").validate(
        model, corpus, verbose=False
    )
    text = corpus.splits.validation
    tokens = torch.tensor([int(text[torch.tensor([i]).numpy()][0]) for i in range(len(text))])
    stride = stride or 8
    total, at = 0.0, 0
    model.eval()
    for target in range(1, len(tokens)):
        # The first window predicts 8 bytes; each later one starts `stride` further on and predicts its last ones.
        while target > at + 8:
            at += stride
        logits = model.decoder(tokens[None, at:target])[0, -1]
        total -= torch.log_softmax(logits, -1)[tokens[target]].item()
    expected = total / (len(tokens) - 1)
    assert metrics["val/loss"] == pytest.approx(expected, rel=1e-6)
    assert metrics["val/bits_per_byte"] == pytest.approx(expected / math.log(2), rel=1e-6)
    assert metrics["val/perplexity"] == pytest.approx(math.exp(expected), rel=1e-5)


class Recorder(Callback):
    def __init__(self):
        self.norms, self.rates = [], []

    def on_train_batch_end(self, trainer, *_):
        self.norms.append(float(trainer.callback_metrics["optim/grad_norm"]))
        self.rates.append(float(trainer.callback_metrics["optim/lr"]))


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_the_norm_is_logged_as_it_was_before_clipping(folder, clip):
    recorder = Recorder()
    fit(build(), 4, callbacks=[recorder], gradient_clip_val=clip)
    assert all(norm > 0.01 for norm in recorder.norms)
    assert recorder.rates[:2] == pytest.approx([0.005, 0.01])  # two steps of warm-up


def test_the_options_of_the_command_win_over_the_checkpoint(folder):
    fit(build(), 3).save_checkpoint("x.ckpt")
    recorder = Recorder()
    other = LanguageModel.from_config({**CONFIG, "optimizer": {"lr": 0.5}, "schedule": None})
    fit(other, 5, callbacks=[recorder], ckpt_path="x.ckpt")
    assert recorder.rates == [0.5, 0.5]


def test_a_schedule_needs_the_length_of_the_run(folder):
    with pytest.raises(ValueError, match=r"trainer\.max_steps is -1"):
        fit(build(), -1)


def test_bf16_and_compiling_train(folder):
    model = LanguageModel.from_config({**CONFIG, "compile": {"backend": "eager", "disable": True}})
    fit(model, 3, precision="bf16-mixed")
    assert not any("_orig_mod" in name for name in model.state_dict())


def test_without_a_compiler_training_continues(folder, monkeypatch):
    monkeypatch.setattr("lightning_xt.training.compilation.has_compiler", lambda device: False)
    model = LanguageModel.from_config({**CONFIG, "compile": True})
    with pytest.warns(UserWarning, match="a C\\+\\+ compiler .* is not installed"):
        fit(model, 3)


def test_refuses_what_torch_compile_does_not_take(folder, monkeypatch):
    monkeypatch.setattr(compilation, "_find_obstacle", lambda device: None)
    both = {"mode": "max-autotune", "options": {"shape_padding": True}, "backend": "inductor"}
    model = LanguageModel.from_config({**CONFIG, "compile": both})
    with pytest.raises(ValueError, match=r"model\.compile is \{.*shape_padding.*which torch\.compile does not take: "):
        fit(model, 1)


def test_refuses_cuda_graphs_where_gradients_add_up(monkeypatch, caplog):
    monkeypatch.setattr(compilation, "_find_obstacle", lambda device: None)
    network, options, device = torch.nn.Linear(1, 1), {"mode": "reduce-overhead"}, torch.device("cuda")
    with pytest.raises(ValueError, match=r"model\.compile\.mode is reduce-overhead.*accumulate_grad_batches 2 adds up"):
        compilation.compile_forward(network, options, device, accumulated=2)
    assert compilation.compile_forward(network, options, device) is not None
    assert "compiling the network: the first step takes a minute or more" in caplog.text


def test_refuses_a_backend_that_draws_again_what_is_computed_again(monkeypatch):
    network, device = Decoder(11, dim=16, depth=1, checkpoint_layers=True), torch.device("cpu")
    with pytest.raises(
        ValueError, match=r"^model\.compile\.backend is eager, .*; choose aot_eager or inductor, or set ch"
    ):
        compilation.compile_forward(network, {"backend": "eager"}, device)
    assert compilation.compile_forward(network, {"backend": "aot_eager"}, device) is not None


def test_refuses_to_clip_what_a_fused_optimizer_scales_later():
    optimizer = {"class_path": "AdamW", "init_args": {"lr": 0.01, "fused": True}}
    model = LanguageModel.from_config({**CONFIG, "optimizer": optimizer, "schedule": None})
    # On a CPU Lightning scales no losses.
    model.trainer = SimpleNamespace(precision="16-mixed", gradient_clip_val=0.5)
    with pytest.raises(
        ValueError, match=r"trainer\.gradient_clip_val is 0\.5, but in precision 16-mixed a fused AdamW"
    ):
        model.configure_optimizers()
    model.trainer.gradient_clip_val = None
    assert model.configure_optimizers().defaults["fused"]


def test_clips_each_value_of_the_gradients(folder):
    class Largest(Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            if found := [p.grad.abs().max() for p in pl_module.parameters() if p.grad is not None]:
                self.found = max(found).item()

    largest = Largest()
    fit(build(), 3, callbacks=[largest], gradient_clip_val=1e-4, gradient_clip_algorithm="value")
    assert largest.found == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("options", "way"),
    [
        ({}, "give a smaller --max_new_tokens, or --window 8"),
        ({"attention": "DeltaNet"}, "give a smaller --max_new_tokens"),
        ({"segments": {"class_path": "SegmentRecurrence", "init_args": {"length": 8}}}, None),
    ],
    ids=["attention", "recurrence", "segments"],
)
def test_the_warning_about_long_completions_offers_what_the_model_takes(options, way):
    model = LanguageModel.from_config({"decoder": {"dim": 16, "depth": 1, **options}})
    model._trained_length = 8
    found = model.text_generator.find_excess(["ab"], GenerationOptions(max_new_tokens=20))
    assert found is None if way is None else found.endswith(way)
