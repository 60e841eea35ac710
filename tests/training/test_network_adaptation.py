"""Runs whose network is frozen in part, and runs of adapters: starting, resuming, checkpoints, averages."""

import re
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from processes_fits import SavesHalfway, build_training, fit
from tiny_run import load_weights
from torch.utils.data import DataLoader

from lightning_xt.cli import main
from lightning_xt.commands.models.inference import Inference
from lightning_xt.commands.models.loading import load
from lightning_xt.inference.text_generator import DecodingSetup
from lightning_xt.nn.adapters.adapted_layer import list_adapter_parameters
from lightning_xt.nn.adapters.layer_replacement import merge_adapters
from lightning_xt.training.callbacks.exponential_average import ExponentialAverage
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.masked_language_model import MaskedLanguageModel
from lightning_xt.training.network_adaptation import count_trained
from lightning_xt.training.seq2seq import Seq2Seq

SIZES = {"dim": 16, "depth": 1, "attention": {"heads": 2}}
TUNE = ["fit", "-c", "lora.yaml", "--init_from", "runs/tiny", "--model.adapter.rank", "2"]
STILL = ["--model.optimizer.init_args.lr", "0", "--trainer.max_steps", "3"]


def names_trained(model):
    return {name for name, parameter in model.network.named_parameters() if parameter.requires_grad}


def test_frozen_patterns_name_parameters_of_the_network():
    model = LanguageModel.from_config({"decoder": SIZES, "frozen": ["*embedding*", "stack.*.to_qkv.weight"]})
    frozen = {name for name, _ in model.network.named_parameters()} - names_trained(model)
    assert frozen == {"token_embedding.weight", "stack.sublayers.0_attention.branch.projection.to_qkv.weight"}
    trained, parameters = count_trained(model)
    assert parameters - trained == sum(model.network.get_parameter(name).numel() for name in frozen)
    # A tied head is its table.
    tied = LanguageModel.from_config({"decoder": {**SIZES, "head": "TiedHead"}, "frozen": ["head.*"]})
    assert not tied.network.token_embedding.weight.requires_grad
    pairs = Seq2Seq.from_config({"encoder": SIZES, "decoder": SIZES, "frozen": ["encoder.*"]})
    assert all(name.startswith("decoder.") for name in names_trained(pairs))


@pytest.mark.parametrize(
    ("frozen", "sentence"),
    [
        (
            ["*embeding*"],
            r"model\.frozen '\*embeding\*' matches no parameter of the network; did you mean \*token_embedding\*",
        ),
        (["*"], r"model\.frozen is \['\*'\], which leaves no parameter of the network to train; remove a pattern"),
    ],
)
@pytest.mark.parametrize("kind", [LanguageModel, MaskedLanguageModel])
def test_frozen_patterns_that_do_not_fit_are_refused(kind, frozen, sentence):
    network = "decoder" if kind is LanguageModel else "encoder"
    with pytest.raises(ValueError, match=sentence):
        kind.from_config({network: SIZES, "frozen": frozen})


@pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")
@pytest.mark.parametrize("optimizer", ["AdamW", "MuonAdamW"])
def test_training_changes_the_adapter_alone_and_its_average_follows(tmp_path, optimizer):
    config = {
        "decoder": SIZES,
        "adapter": {"class_path": "LoRA", "init_args": {"rank": 2, "dropout": 0.1, "trained": ["*norm*"]}},
        "optimizer": optimizer,
        "schedule": None,
    }
    model = LanguageModel.from_config(config)
    assert names_trained(model) == {
        name for name, _ in model.network.named_parameters() if "lora" in name or "norm" in name
    }
    before = {name: value.clone() for name, value in model.state_dict().items()}
    average = ExponentialAverage(decay=0.5)
    trainer = Trainer(
        max_steps=3,
        gradient_clip_val=0.5,
        accelerator="cpu",
        logger=False,
        callbacks=[average],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    batches = torch.randint(0, 256, (6, 9), generator=torch.Generator().manual_seed(1))
    # The head begins at zero, which stops every gradient.
    torch.nn.init.normal_(model.network.head.to_logits.weight, std=0.1)
    before["decoder.head.to_logits.weight"] = model.network.head.to_logits.weight.clone()
    trainer.fit(model, DataLoader(batches, batch_size=2))
    (groups,) = [each.param_groups for each in trainer.optimizers]
    assert sum(len(group["params"]) for group in groups) == len(names_trained(model))
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    after = model.state_dict()
    changed = {name.removeprefix("decoder.") for name in before if not torch.equal(before[name], after[name])}
    assert changed == names_trained(model)
    loaded = LanguageModel.load_from_checkpoint(tmp_path / "saved.ckpt", map_location="cpu")
    assert names_trained(loaded) == names_trained(model)
    tokens = torch.randint(0, 256, (2, 9))
    assert torch.equal(loaded.eval()(tokens), model.eval()(tokens))


@pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")
def test_an_adapter_and_its_average_resume_exactly_and_leave_the_base(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 20)
    file = tmp_path / "halfway.ckpt"
    callbacks = [ExponentialAverage(decay=0.5), SavesHalfway(file)]
    run = partial(fit, tmp_path, "one", kind="LoRA", optimizer="MuonAdamW", callbacks=callbacks)
    whole, again = run(), run(resume=file)
    start = build_training("LoRA", "MuonAdamW", 1)[0]
    saved = torch.load(file, weights_only=True)
    for name, each in start.named_parameters():
        states = (saved["state_dict"], saved["current_model_state"], whole.weights, again.weights)
        assert all(torch.equal(state[name], each) != each.requires_grad for state in states), name
    assert any(not torch.equal(saved["state_dict"][n], saved["current_model_state"][n]) for n in whole.weights)
    torch.testing.assert_close(again.weights, whole.weights, rtol=0, atol=0)
    torch.testing.assert_close(again.optimizer["state"], whole.optimizer["state"], rtol=0, atol=0)


def test_generation_merges_an_adapter_except_a_sharded_one():
    adapter = {"class_path": "LoRA", "init_args": {"rank": 2}}
    module = LanguageModel.from_config({"decoder": SIZES, "adapter": adapter})
    Inference().apply(module)
    assert not list_adapter_parameters(module.decoding.network) and list_adapter_parameters(module.network)
    # Its matrices are in parts, and it refuses to be copied.
    module.decoding, module._device_mesh = DecodingSetup(), object()
    Inference().apply(module)
    assert module.decoding.network is module.network


@pytest.fixture
def base(trained):
    """Return the folder of a trained run and of an overlay that gives it an adapter, as the current folder."""
    Path("lora.yaml").write_text("model: {init_args: {adapter: {class_path: LoRA}}}\n")
    return trained


@pytest.fixture
def recipe(base):
    """Return a command that fits the recipe of fine-tuning on a file of conversations."""
    talk = '{"prompt": "Name a fruit.", "response": "An apple."}\n'
    Path("chats.jsonl").write_text(talk * 20)
    short = ["--trainer.max_steps", "2", "--model.schedule.warmup_steps", "1", "--data.seq_len", "64"]
    return ["fit", "-c", "language/finetune_lora.yaml", "--data.path", "chats.jsonl", "--name", "tuned", *short]


@pytest.mark.slow
def test_the_recipe_tunes_a_run_on_conversations(recipe, capsys):
    assert main([*recipe, "--init_from", "runs/tiny"]) == 0
    said = capsys.readouterr().out
    assert "run=runs/tuned/0" in said and "data:   Conversations, 18 conversations" in said and " train (" in said


def test_the_recipe_does_not_take_over_held_out_files(recipe, capsys):
    config = Path("runs/tiny/0/config.yaml")
    held_out = re.sub(r"^( +(validation|test)):.*", r"\1: held_out.txt", config.read_text(), flags=re.M)
    assert held_out.count("held_out.txt") == 2
    config.write_text(held_out)
    assert main([*recipe, "--init_from", "runs/tiny", "--print_config"]) == 0
    said = capsys.readouterr().out
    assert "validation: 0.05" in said and "test: 0.05" in said and "held_out" not in said


def test_the_recipe_without_a_run_to_tune_is_refused(recipe, capsys):
    assert main(recipe) == 2
    assert "frozen weights, which are random in a new run; give the run to fine-tune" in capsys.readouterr().err


def test_an_overlay_with_an_adapter_tunes_a_run_and_resumes_exactly(base, capsys):
    steps = ["--checkpoint_every", "3", "--keep_checkpoints", "5"]
    assert main([*TUNE, *steps]) == 0
    said = capsys.readouterr().out
    assert "run=runs/lora/0" in said and "5,176 parameters, of which 288 train (5.56%)" in said
    base, tuned = load_weights(kind="best"), load_weights("runs/lora/0")
    added = tuned.keys() - base.keys()
    assert base.keys() < tuned.keys() and all(name.endswith(("lora_A", "lora_B")) for name in added)
    assert all(torch.equal(value, tuned[name]) for name, value in base.items())
    assert any(tuned[name].abs().max() > 0 for name in added if name.endswith("lora_B"))
    halfway = "runs/lora/0/checkpoints/step-3.ckpt"
    assert main(["fit", "-c", "runs/lora/0/config.yaml", "--ckpt_path", halfway, "--name", "again"]) == 0
    again = load_weights("runs/again/0")
    assert all(torch.equal(value, again[name]) for name, value in tuned.items())
    assert main(["info", "runs/lora"]) == 0
    said = capsys.readouterr().out
    assert "5,176 (float32), 20,704 bytes, 288 of them trained" in said and "LoRA: rank 2" in said
    assert main(["generate", "runs/lora", "--prompt", "a", "--max_new_tokens", "3"]) == 0


@pytest.mark.slow
def test_an_adapter_trains_further_or_is_merged(base):
    assert main(TUNE) == 0
    tuned = load("runs/lora")
    with torch.no_grad():
        # As it would be after a long training.
        path = Path("runs/lora/0/checkpoints/best.ckpt")
        content = torch.load(path, weights_only=True)
        for name in list_adapter_parameters(tuned):
            content["state_dict"][name].normal_(std=0.5)
        torch.save(content, path)
    tuned = load("runs/lora")
    start = ["--init_from", "runs/lora", *STILL]
    # Of the same recipe: the adapter trains further.
    assert main(["fit", "--name", "further", *start]) == 0
    further = load_weights("runs/further/0")
    assert all(torch.equal(value, further[name]) for name, value in tuned.state_dict().items())
    merged = merge_adapters(tuned.network).state_dict()
    # Of another: it is merged, and the new one begins at zero.
    assert main(["fit", "--name", "other", *start, "--model.adapter.alpha", "1"]) == 0
    # None: it is merged.
    assert main(["fit", "-c", "tiny.yaml", "--name", "plain", *start]) == 0
    plain, other = load_weights("runs/plain/0"), load_weights("runs/other/0")
    assert plain.keys() == {f"decoder.{name}" for name in merged}
    for name, value in merged.items():
        assert torch.equal(plain[f"decoder.{name}"], value) and torch.equal(other[f"decoder.{name}"], value)
    assert all(not value.any() for name, value in other.items() if name.endswith("lora_B"))


def test_a_pattern_without_a_match_is_a_mistake_of_the_user(base, capsys):
    before = sorted(Path("runs").rglob("*"))
    assert main([*TUNE, "--model.adapter.targets", '["*.q_proj"]']) == 2
    said = capsys.readouterr().err
    assert (
        "adapter: LoRA: targets '*.q_proj' matches no linear map of the network; there is *.to_hidden, *.to_logits"
        in said
    )
    assert main([*TUNE, "--model.decoder.dim", "16"]) == 2
    assert (
        "of another shape, such as decoder.head.to_logits.weight (256, 8) there, (256, 16)" in capsys.readouterr().err
    )
    assert sorted(Path("runs").rglob("*")) == before
