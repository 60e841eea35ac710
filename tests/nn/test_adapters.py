"""Adapters: the formula of LoRA, its maps in one matrix, merging, and the laws of every network with an adapter."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch
from catalogue import BUILDS, RECIPES, attention, crop, decoder, example, randomise
from torch import nn

from lightning_xt.core.adapted_matrix import get_matrix
from lightning_xt.generation.models.quantized_weights import convert_weights
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder import Encoder
from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.nn.adapters.adapted_layer import list_adapter_parameters
from lightning_xt.nn.adapters.layer_replacement import merge_adapters
from lightning_xt.nn.adapters.lora import LoRA
from lightning_xt.nn.adapters.low_rank_linear import LowRankLinear
from lightning_xt.nn.feedforward.nested_mlp import NestedMLP
from lightning_xt.nn.feedforward.swiglu import SwiGLU
from lightning_xt.nn.positions.dynamic_bias import DynamicBias
from lightning_xt.nn.projections.latent import Latent
from lightning_xt.training.optim.parameter_groups import list_parts, parameter_groups

SOME = ["plain", "kv_heads", "latent-query_latent-window", "embedding_dim-tied_head", "feedforward=MixtureOfExperts"]
"""Recipes of the default tests: maps in one matrix, matrices that parts read, a tied head, experts."""


def adapt(model, **options):
    """Give a network an adapter whose product is not zero."""
    LoRA(**{"rank": 2, "targets": ["*"], **options}).adapt(model)
    with torch.no_grad():
        for name in list_adapter_parameters(model):
            model.get_parameter(name).normal_(std=0.3)
    return model.eval()


def small(**options):
    return decoder(feedforward=partial(SwiGLU, hidden_dim=7), **options)


def close(actual, expected, tolerance=1e-10):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def test_each_map_of_a_matrix_has_its_own_product():
    x, generator = torch.randn(3, 5, dtype=torch.float64), torch.Generator().manual_seed(1)
    linear = nn.Linear(5, 9, dtype=torch.float64)
    adapted = LowRankLinear(linear, rows=(4, 2, 3), rank=2, scale=1.5, dropout=0.0)
    a = torch.randn(3, 2, 5, generator=generator, dtype=torch.float64)
    b = [torch.randn(rows, 2, generator=generator, dtype=torch.float64) for rows in (4, 2, 3)]
    with torch.no_grad():
        adapted.lora_A.copy_(a.flatten(0, 1))
        adapted.lora_B.copy_(torch.cat(b))
    changes = [1.5 * x @ a[n].T @ b[n].T for n in range(3)]
    close(adapted(x), x @ linear.weight.T + linear.bias + torch.cat(changes, dim=-1))
    matrix = linear.weight + 1.5 * torch.cat([b[n] @ a[n] for n in range(3)])
    close(get_matrix(adapted), matrix)
    # Sharding takes what has a parameter's name for the parameter.
    assert adapted.weight is linear.weight and get_matrix(linear) is linear.weight
    close(adapted.merge().weight, matrix)
    assert type(adapted.merge()) is nn.Linear and adapted.merge().bias is linear.bias


def test_the_network_begins_as_it_was_and_keeps_its_names():
    model = randomise(small)
    before, state = model(*example(2, 7)[:1]), dict(model.state_dict())
    LoRA(rank=3).adapt(model)
    assert torch.equal(model(*example(2, 7)[:1]), before)
    added = model.state_dict().keys() - state.keys()
    assert added == {*list_adapter_parameters(model)}
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    # Queries, keys and values, and gate and hidden features, have separate matrices.
    shapes = {name.split("branch.")[1]: tuple(model.get_parameter(name).shape) for name in added if ".0_" in name}
    dim = model.stack.dim
    assert shapes["projection.to_qkv.lora_A"] == (3 * 3, dim)
    assert shapes["feedforward.to_hidden.lora_A"] == (2 * 3, dim) and shapes["feedforward.to_hidden.lora_B"] == (14, 3)
    assert shapes["to_out.lora_B"] == (dim, 3)
    bound = dim**-0.5
    start = model.get_submodule("stack.sublayers.0_attention.branch.projection.to_qkv").lora_A
    assert start.abs().max() <= bound and start.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.2)


def test_only_the_adapter_and_what_is_named_train():
    model = randomise(small)
    LoRA(rank=2, targets=["*.to_qkv", "*.to_hidden"], trained=["*norm_before*", "head.*"]).adapt(model)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {
        name for name, _ in model.named_parameters() if "lora" in name or "norm_before" in name or name[:5] == "head."
    }
    assert {name.split(".")[-2] for name in trained if "lora" in name} == {"to_qkv", "to_hidden"}
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        model(torch.randint(0, 11, (2, 7))).square().sum().backward()
        optimizer.step()
    after = model.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == trained


def test_scales():
    assert [LoRA(rank=4).scale, LoRA(rank=4, alpha=2).scale] == [2, 0.5]
    assert LoRA(rank=4, alpha=6, rank_stabilized=True).scale == 3
    adapted = adapt(small(), rank=4, alpha=6, rank_stabilized=True)
    assert {layer.scale for layer in adapted.modules() if isinstance(layer, LowRankLinear)} == {3}


def test_dropout_hides_input_features_from_the_product_alone():
    adapted = LowRankLinear(nn.Linear(8, 4), (4,), 8, 1.0, dropout=0.5)
    with torch.no_grad():
        adapted.weight.zero_()
        adapted.bias.zero_()
        adapted.lora_A.copy_(torch.eye(8))
        adapted.lora_B.fill_(1.0)
    x = torch.ones(200, 8)
    # Each of 8 features counts twice, or not.
    assert {*adapted(x).unique().tolist()} <= {2.0 * n for n in range(9)} and adapted(x).unique().numel() > 3
    assert torch.equal(adapted.eval()(x), torch.full((200, 4), 8.0))


@pytest.mark.parametrize("name", SOME)
@pytest.mark.checks_shapes
def test_merged_weights_give_the_logits_of_the_adapter(name):
    model = adapt(randomise(BUILDS[name]))
    tokens, inputs = example(2, 7)
    expected = model(tokens, inputs=inputs)
    plain = copy.deepcopy(model)
    merged = merge_adapters(model)
    assert not any(isinstance(layer, LowRankLinear) for layer in merged.modules())
    assert all(parameter.requires_grad for parameter in merged.parameters())
    close(merged(tokens, inputs=inputs), expected)
    # The adapted network stays as it was.
    assert torch.equal(model(tokens, inputs=inputs), expected)
    close(convert_weights(plain, "float32")(tokens, inputs=inputs), expected)
    assert merged.state_dict().keys() == BUILDS[name]().state_dict().keys()
    assert merge_adapters(merged) is merged


def test_int8_rounds_merged_weights():
    model = adapt(randomise(small, torch.float32))
    tokens = example(2, 7)[0]
    rounded = convert_weights(model, "int8")
    assert torch.equal(rounded(tokens), convert_weights(merge_adapters(model), "int8")(tokens))
    assert not list_adapter_parameters(rounded)


def check_laws(build):
    """Decode with a cache, in pieces, and compare with one forward; and let every narrow matrix learn."""
    model = adapt(randomise(build))
    tokens, inputs = example(2, 13)
    with torch.no_grad():
        whole, cache, made, at = model(tokens, inputs=inputs), model.new_cache(2, 13, slack=2), [], 0
        for count in (5, 1, 1, 2, 1, 3):
            piece = slice(at, at := at + count)
            made.append(model(tokens[:, piece], inputs=crop(inputs, piece), cache=cache))
        close(torch.cat(made, dim=1), whole, 1e-9)
        close(merge_adapters(model)(tokens, inputs=inputs), whole, 1e-9)
    return model, tokens, inputs


@pytest.mark.parametrize("name", [*SOME, "position=DynamicBias", "attention=GatedDeltaNet"])
def test_decoding_with_a_cache_equals_one_forward(name):
    check_laws(BUILDS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_variant_decodes_with_an_adapter(name):
    check_laws(BUILDS[name])


@pytest.mark.parametrize(
    "options",
    [
        {"attention": attention(projection=Latent)},
        {"feedforward": partial(NestedMLP, halvings=1)},
        {"attention": attention(position=DynamicBias)},
        {"embedding_dim": 5},
    ],
    ids=["Latent", "NestedMLP", "DynamicBias", "embedding_dim"],
)
def test_parts_that_read_a_matrix_read_the_merged_one(options):
    model = randomise(partial(decoder, **options))
    tokens = example(2, 7)[0]
    before = model(tokens)
    readers = ("to_keys", "to_values", "to_hidden", "to_out", "to_bias", "projection")
    adapt(model, targets=["*"])
    for name, layer in model.named_modules():
        if isinstance(layer, LowRankLinear) and name.rpartition(".")[2] not in readers:
            layer.lora_B.data.zero_()
    assert (model(tokens) - before).abs().max() > 1e-3
    close(merge_adapters(model)(tokens), model(tokens))
    with torch.no_grad():
        cache = model.new_cache(2, 7)
        close(torch.cat([model(tokens[:, [t]], cache=cache) for t in range(7)], dim=1), model(tokens))


def test_copies_and_bfloat16():
    model = adapt(randomise(small))
    tokens = example(2, 7)[0]
    expected = model(tokens)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(tokens), expected)
        assert [p.requires_grad for p in copied.parameters()] == [p.requires_grad for p in model.parameters()]
    low = copy.deepcopy(model).to(torch.bfloat16)(tokens)
    assert low.dtype == torch.bfloat16
    assert (low.double() - expected).norm() / expected.norm() < 0.05


def test_checkpointed_layers_give_the_same_gradients():
    found = []
    for checkpointed in (False, True):
        model = adapt(randomise(partial(small, checkpoint_layers=checkpointed))).train()
        model(example(2, 7)[0]).square().sum().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    assert {*found[0]} == {name for name in found[0] if "lora" in name} and found[0]
    for name, gradient in found[0].items():
        close(found[1][name], gradient)
        assert gradient.abs().max() > 0


def test_narrow_matrices_are_groups_of_matrices_with_their_parts():
    model = small()
    LoRA(rank=2, targets=["*.to_qkv", "head.*"], trained=["*norm*"]).adapt(model)
    groups = {group["role"]: group for group in parameter_groups(model)}
    assert groups.keys() == {"matrix", "head", "other"}
    assert {name.rpartition(".")[2] for name, _ in groups["head"]["params"]} == {"lora_A", "lora_B"}
    matrices = {
        name.rpartition("projection.")[2]: rows
        for (name, _), rows in zip(
            groups["matrix"]["params"],
            list_parts({**groups["matrix"], "param_names": [name for name, _ in groups["matrix"]["params"]]}),
            strict=True,
        )
    }
    rows = model.stack.sublayers["0_attention"].branch.projection.stacked_rows["to_qkv"]
    assert matrices == {"to_qkv.lora_A": (2, 2, 2), "to_qkv.lora_B": rows}


def test_an_encoder_decoder_has_one_adapter():
    sizes = {"dim": 16, "depth": 1}
    model = EncoderDecoder(11, 11, encoder=partial(Encoder, **sizes), decoder=partial(Decoder, **sizes))
    LoRA(targets=["decoder.*.to_kv"]).adapt(model)
    assert [name.rpartition(".branch.")[2] for name in list_adapter_parameters(model)] == [
        "projection.to_kv.lora_A",
        "projection.to_kv.lora_B",
    ]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rank": 0}, r"adapter: LoRA has rank 0, which must be at least 1"),
        ({"alpha": 0}, r"adapter: LoRA has alpha 0, which must be above 0"),
        ({"dropout": 1.0}, r"adapter: LoRA has dropout 1.0, which must be at least 0 and below 1"),
        ({"targets": []}, r"adapter: LoRA has no targets; give patterns of linear maps, such as \['\*\.to_qkv'\]"),
        (
            {"targets": ["*.to_qvk"]},
            r"adapter: LoRA: targets '\*\.to_qvk' matches no linear map of the network; did you mean \*\.to_qkv",
        ),
        (
            {"targets": ["q_proj"]},
            r"targets 'q_proj' matches no linear map of the network; there is \*\.to_hidden, \*\.to_logits, \*\.to_out",
        ),
        ({"targets": "*.to_qkv"}, r"targets is the text '\*\.to_qkv'; give a list of patterns: \['\*\.to_qkv'\]"),
        (
            {"trained": ["*.nrom_before.gain"]},
            r"adapter: LoRA: trained '\*\.nrom_before\.gain' matches no parameter of the network; did you mean "
            r"\*\.norm_before\.gain",
        ),
    ],
)
def test_what_does_not_fit_is_refused(options, sentence):
    model = small()
    with pytest.raises(ValueError, match=sentence):
        LoRA(**options).adapt(model)
    assert not list_adapter_parameters(model) and all(p.requires_grad for p in model.parameters())


def test_a_second_adapter_is_refused():
    model = adapt(small())
    with pytest.raises(ValueError, match="adapter: LoRA is for a network without an adapter, but this one has one"):
        LoRA().adapt(model)
