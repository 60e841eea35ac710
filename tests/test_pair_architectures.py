"""Whole encoder-decoders: published sizes, and the mathematics of the original, by torch's layers or by formula."""

import re
from typing import Any

import pytest
import torch
import yaml
from test_architectures import CONFIGS, count, read, resize
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_xt.cli import main
from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.training.seq2seq import Seq2Seq

SIZES = {
    "t5": (32_128, {"dim": 512, "depth": 6, "attention": {"heads": 8}, "cross_attention": {"heads": 8}}, 60_506_624, 0),
    "bart": (
        50_265,
        {"dim": 768, "depth": 6, "attention": {"heads": 12}, "cross_attention": {"heads": 12}},
        139_420_416,
        0,
    ),
    # Two tables of sines of 512 positions are among the published ones, the bias of the logits is not.
    "marian": (
        58_101,
        {"dim": 512, "depth": 6, "attention": {"heads": 8}, "cross_attention": {"heads": 8}},
        74_410_496,
        58_101 - 2 * 512 * 512,
    ),
}
"""Vocabulary and sizes of an original, its published number of parameters, and how many more ours has."""


def build(name: str, vocabulary: int, sizes: dict[str, Any]) -> Seq2Seq:
    """Build an architecture at other sizes."""
    options = read(CONFIGS / "architectures" / f"{name}.yaml")
    own = {each: value for each, value in sizes.items() if each != "cross_attention"}
    both = {"encoder": resize(options["encoder"], own), "decoder": resize(options["decoder"], sizes)}
    vocab = {"source": vocabulary, "target": vocabulary, "pad": 0, "start": 1, "end": 2}
    return Seq2Seq.from_config({**options, **both, "vocab": vocab})


@pytest.mark.parametrize("name", SIZES)
def test_an_original_has_its_published_number_of_parameters(name: str) -> None:
    vocabulary, sizes, published, more = SIZES[name]
    text = re.sub(r"\n# +", " ", (CONFIGS / "architectures" / f"{name}.yaml").read_text())
    assert f"{published:,} parameters" in text
    with torch.device("meta"):
        assert count(build(name, vocabulary, sizes)) == published + more


def build_double(name: str) -> EncoderDecoder:
    """Build a tiny architecture in float64, with noise on its parameters."""
    torch.manual_seed(0)
    network = build(name, 11, {"dim": 24, "depth": 2}).network.double().eval()
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network


def collect(network: nn.Module, layer: int) -> dict[str, Tensor]:
    """Return the weights of a layer by torch's names."""
    state: dict[str, Tensor] = {}

    def add(name: str, kind: str, weights: list[Tensor]) -> None:
        state[f"{name}{kind}"] = torch.cat(weights)

    parts = {kind: f"{layer}_{kind}" for kind in ("attention", "cross_attention", "feedforward")}
    present = [network.stack.sublayers[name] for name in parts.values() if name in network.stack.sublayers]
    for number, sublayer in enumerate(present, 1):
        branch, norm = sublayer.branch, sublayer.placement.norm_stream
        state |= {f"norm{number}.weight": norm.gain, f"norm{number}.bias": norm.bias}
        if sublayer is present[-1]:
            for name, linear in (("linear1", branch.feedforward.to_hidden), ("linear2", branch.feedforward.to_out)):
                state |= {f"{name}.weight": linear.weight, f"{name}.bias": linear.bias}
            continue
        name = "self_attn" if number == 1 else "multihead_attn"
        maps = [branch.projection.to_qkv] if number == 1 else [branch.projection.to_q, branch.projection.to_kv]
        for kind in ("weight", "bias"):
            add(name, f".in_proj_{kind}", [getattr(each, kind) for each in maps])
            state[f"{name}.out_proj.{kind}"] = getattr(branch.output_projection.to_out, kind)
    return state


def embed(network: nn.Module, name: str, tokens: Tensor) -> Tensor:
    """Compute the vectors before the first layer."""
    vectors, n = network.token_embedding.weight[tokens], tokens.shape[1]
    if name == "bart":
        positions, norm = network.embeddings[0].table.weight, network.embeddings[1].norm
        return F.layer_norm(vectors + positions[:n], (24,), norm.gain, norm.bias, 1e-5)
    # Frequencies are float32 in any model.
    frequencies = (10_000.0 ** -(torch.arange(0, 24, 2, dtype=torch.float64) / 24)).float()
    angles = torch.arange(n, dtype=torch.float64)[:, None] * frequencies
    return 24**0.5 * vectors + torch.cat((angles.sin(), angles.cos()), dim=1)


@pytest.mark.parametrize(
    ("name", "activation"),
    [("bart", F.gelu), ("marian", F.silu), ("deep_encoder", F.relu)],
    ids=lambda each: "" if callable(each) else each,
)
@torch.no_grad()
def test_a_first_transformer_is_that_of_torch(name: str, activation: Any) -> None:
    network = build_double(name)
    assert network.encoder.token_embedding is network.decoder.token_embedding
    src, tgt = torch.randint(3, 11, (2, 7)), torch.randint(3, 11, (2, 5))
    real = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    sizes = {"dropout": 0.0, "activation": activation, "batch_first": True, "dtype": torch.float64}
    x = embed(network.encoder, name, src)
    for layer in range(2):
        one = nn.TransformerEncoderLayer(24, 4, 96, **sizes).eval()
        one.load_state_dict(collect(network.encoder, layer))
        x = one(x, src_key_padding_mask=~real)
    y, mask = embed(network.decoder, name, tgt), nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    for layer in range(2):
        two = nn.TransformerDecoderLayer(24, 4, 96, **sizes).eval()
        two.load_state_dict(collect(network.decoder, layer))
        y = two(y, x, tgt_mask=mask, memory_key_padding_mask=~real)
    expected = y @ network.decoder.token_embedding.weight.T
    if network.decoder.head.bias is not None:
        assert name == "marian" and network.decoder.head.bias.abs().min() > 0
        expected = expected + network.decoder.head.bias
    torch.testing.assert_close(network(src, tgt, real), expected, rtol=1e-9, atol=1e-9)


def normalize(x: Tensor, sublayer: nn.Module) -> Tensor:
    return x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * sublayer.placement.norm_before.gain


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attend in four heads of six features; the scores get a bias for each head."""
    heads = [t.unflatten(-1, (4, 6)).transpose(0, 1) for t in (q, k, v)]
    weights = (heads[0] @ heads[1].transpose(1, 2) / 6**0.5 + bias).softmax(dim=-1)
    return (weights @ heads[2]).transpose(0, 1).flatten(1)


@torch.no_grad()
def test_t5_is_its_formula() -> None:
    """Seven tokens are nearer than the distances that share a bucket, so that each distance has another bias."""
    network = build_double("t5")
    src, tgt = torch.randint(3, 11, (1, 7)), torch.randint(3, 11, (1, 5))
    ahead = torch.arange(7)[None, :] - torch.arange(7)[:, None]
    sides = {}
    for side, tokens in (("encoder", src), ("decoder", tgt)):
        part, n = getattr(network, side), tokens.shape[1]
        # Keys ahead of the query have the second half of the encoder's 32 buckets.
        bucket = ahead.abs() + 16 * (ahead > 0) if side == "encoder" else (-ahead).clamp(min=0)
        (table,) = [value for name, value in part.named_parameters() if name.endswith("position.table")]
        bias = table[bucket[:n, :n]].permute(2, 0, 1)
        bias = bias if side == "encoder" else bias.masked_fill(ahead[:n, :n] > 0, -torch.inf)
        x = 24**0.5 * part.token_embedding.weight[tokens[0]]
        for layer in range(2):
            attention, feedforward = (part.stack.sublayers[f"{layer}_{kind}"] for kind in ("attention", "feedforward"))
            q, k, v = (normalize(x, attention) @ attention.branch.projection.to_qkv.weight.T).chunk(3, dim=-1)
            x = x + attend(q, k, v, bias) @ attention.branch.to_out.weight.T
            if side == "decoder":
                across = part.stack.sublayers[f"{layer}_cross_attention"]
                q = normalize(x, across) @ across.branch.projection.to_q.weight.T
                k, v = (sides["encoder"] @ across.branch.projection.to_kv.weight.T).chunk(2, dim=-1)
                x = x + attend(q, k, v, torch.zeros(())) @ across.branch.to_out.weight.T
            maps = feedforward.branch.feedforward
            x = x + F.relu(normalize(x, feedforward) @ maps.to_hidden.weight.T) @ maps.to_out.weight.T
        sides[side] = x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * part.stack.output_norm.gain
    expected = sides["decoder"] @ network.decoder.token_embedding.weight.T
    torch.testing.assert_close(network(src, tgt)[0], expected, rtol=1e-9, atol=1e-9)


RECIPES = sorted(file for folder in ("translation", "denoising") for file in (CONFIGS / folder).glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t5", "bart", "marian", "deep_encoder"])
def test_an_architecture_is_the_same_after_every_recipe(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = []
    for recipe in RECIPES:
        assert main(["fit", "-c", str(recipe), "-c", f"architectures/{name}.yaml", "--print_config"]) == 0
        options = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
        sides = [options[side]["init_args"] for side in ("encoder", "decoder")]
        for side in sides:
            # The recipe's, which fits its data.
            side.pop("dropout")
        made.append((options["shared_embedding"], *sides))
    assert all(each == made[0] for each in made[1:])
