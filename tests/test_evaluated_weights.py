"""Evaluations with int8 and int4 weights from the command line: their metrics, and those of the weights as trained."""

import re
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_xt.cli import main
from lightning_xt.commands.models.generation_cost import GenerationCost
from lightning_xt.commands.models.inference import Inference
from lightning_xt.commands.models.loading import load
from lightning_xt.data.prompt_files import number_prompts
from lightning_xt.generation.models.int4_linear import Int4Linear
from lightning_xt.generation.models.int8_linear import Int8Linear
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.system.messages import UserError
from lightning_xt.training.module import TransformerModule

TINY, PAIRS = "runs/tiny/0", "runs/pairs/0"


def redraw(weight):
    """Draw weights so large that their rounding shows in the loss."""
    return torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))


def change_weights(change, run=TINY):
    """Change the matrices of linear layers in a checkpoint."""
    module = load(run)
    linear = {f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    file = Path(run, "checkpoints/best.ckpt")
    checkpoint = torch.load(file, weights_only=True)
    for name in linear:
        checkpoint["state_dict"][name] = change(checkpoint["state_dict"][name])
    torch.save(checkpoint, file)


@pytest.fixture
def evaluate(capsys):
    """Return a function that evaluates a run, and returns its metrics and the lines of standard error."""

    def run(command, *args):
        capsys.readouterr()
        assert main([command, *args]) == 0
        captured = capsys.readouterr()
        found = dict(line.split("=") for line in captured.out.splitlines() if line.startswith(("val/", "test/")))
        return {name: float(value) for name, value in found.items()}, captured.err.splitlines()

    return run


def round_matrix(kind, group_size, weight):
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = nn.Parameter(weight)
    return kind(linear, group_size).weight.float()


@pytest.mark.parametrize(
    ("options", "label", "kind", "group_size"),
    [
        (["--weights", "int4"], "int4", Int4Linear, None),
        (["--weights=int4", "--group_size", "row"], "int4 (group_size row)", Int4Linear, "row"),
        (["--inference.weights=int8", "--inference.group_size=3"], "int8 (group_size 3)", Int8Linear, 3),
    ],
)
def test_an_evaluation_measures_rounded_weights_and_those_trained(trained, evaluate, options, label, kind, group_size):
    change_weights(redraw)
    trained, said = evaluate("validate", TINY)
    assert said == []
    rounded, said = evaluate("validate", TINY, *options)
    bits = [each["val/bits_per_byte"] for each in (rounded, trained)]
    more = bits[0] - bits[1]
    (line,) = said
    start = f"weights {label}: val/bits_per_byte {bits[0]:.6f}, {bits[1]:.6f} with float32; difference "
    assert line.startswith(start)
    difference, relative = re.fullmatch(r"([+-][\d.]+) \(([+-][\d.]+) %\)", line.removeprefix(start)).groups()
    assert float(difference) == pytest.approx(more, abs=3e-6)
    assert float(relative) == pytest.approx(100 * more / bits[1], abs=0.01)
    # A checkpoint with these weights has the same loss, but for activations in bfloat16.
    change_weights(partial(round_matrix, kind, group_size))
    again = evaluate("validate", TINY)[0]
    near, far = (abs(again["val/loss"] - each["val/loss"]) for each in (rounded, trained))
    assert near < (0.3 * far if kind is Int4Linear else 0.05), (near, far)


def test_a_test_measures_them_too(trained, evaluate):
    tested, said = evaluate("test", TINY, "--weights", "int8")
    assert said[0].startswith(f"weights int8: test/bits_per_byte {tested['test/bits_per_byte']:.6f}, ")


def test_weights_as_trained_are_measured_without_comparison(trained, evaluate):
    plain, ordered = evaluate("validate", TINY), evaluate("validate", TINY, "--weights", "float32")
    assert plain[1] == ordered[1] == []
    assert ordered[0] == pytest.approx(plain[0], rel=1e-5)


def test_a_translator_is_measured_by_its_loss(finished_pairs, tmp_path, monkeypatch, evaluate):
    monkeypatch.chdir(shutil.copytree(finished_pairs, tmp_path / "pairs"))
    change_weights(redraw, PAIRS)
    trained, said = evaluate("validate", PAIRS)
    assert said == []
    rounded, said = evaluate("validate", PAIRS, "--weights", "int4")
    losses = [each["val/loss"] for each in (rounded, trained)]
    assert losses[0] != losses[1]
    (line,) = said
    assert line.startswith(
        f"weights int4: val/loss {losses[0]:.6f} nats a token, {losses[1]:.6f} with float32; difference "
    )


def test_the_cost_of_a_translation_counts_the_encoder(finished_pairs, monkeypatch):
    monkeypatch.chdir(finished_pairs)
    module = load(PAIRS)
    inference = Inference(weights="int4")
    inference.apply(module)
    translator = module.text_generator
    assert isinstance(translator.network.encoder.stack.sublayers["0_feedforward"].branch, nn.Module)
    assert any(isinstance(part, Int4Linear) for part in translator.network.encoder.modules())
    assert not any(isinstance(part, Int4Linear) for part in module.network.modules())
    options = GenerationOptions(max_new_tokens=4, temperature=0.0)
    results = translator.complete(number_prompts(["a red dog", "old man"]), options)
    expected, tokens = 0.0, 0
    for result, text in zip(results, ["a red dog", "old man"], strict=True):
        ids = torch.tensor([[1, *result.completions[0].tokens]])
        source = torch.tensor([translator.tokenize_source(text)[0]])
        with torch.no_grad():
            log_probs = module.network.eval()(source, ids[:, :-1])[0].log_softmax(-1)
        expected -= float(log_probs.gather(1, ids[0, 1:, None]).sum())
        tokens += ids.shape[1] - 1
    assert isinstance(inference.cost, GenerationCost) and inference.cost.tokens == tokens
    assert str(inference.cost).endswith(f", {expected / tokens:.4f} with float32")


def test_after_an_evaluation_the_module_is_as_before(trained, evaluate, monkeypatch):
    seen = []
    compute = TransformerModule.on_validation_epoch_end
    monkeypatch.setattr(
        TransformerModule, "on_validation_epoch_end", lambda module: (seen.append(module), compute(module))[1]
    )
    evaluate("validate", TINY, "--weights", "int8")
    (module,) = seen
    assert module.evaluated_network is module.decoder and not module.decoding.settings


MISTAKES = [
    (["--weights", "int3"], "--weights: expected one of 'float32', 'bfloat16', 'int8', 'int4', not 'int3'"),
    (["--weights=int4", "--group_size=-1"], "group_size is -1; it must be at least 1 number of a row, or row for one"),
    (["--group_size=32"], "group_size is 32, but weights is not given, which has no groups; omit it, or set weights"),
    (["--weights=int4", "--group_size=x"], "--group_size: expected a number or 'row', not 'x'"),
]


@pytest.mark.parametrize(("options", "sentence"), MISTAKES)
def test_mistakes_are_one_sentence(trained, capsys, options, sentence):
    assert main(["validate", TINY, *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith(f"lightning-xt: error: {sentence}")


def test_sharded_networks_are_refused():
    module = SimpleNamespace(device_mesh=object())
    with pytest.raises(
        UserError, match=r"--inference\.weights int4 needs whole matrices, but a sharding strategy leaves"
    ):
        Inference(weights="int4")._convert(module)
    with pytest.raises(UserError, match=r"--inference\.compile true needs whole matrices, but a sharding strategy"):
        Inference(compile=True)._convert(module)
