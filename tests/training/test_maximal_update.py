"""muP: sizes of activations that do not depend on the width, the factors that reach it, and what it refuses."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from processes_run import QUIET

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.trace import Trace
from lightning_xt.core.where import Where
from lightning_xt.data.probes.parity import Parity
from lightning_xt.exchange.exported_model import ExportedModel, ExportOptions
from lightning_xt.exchange.misfit import MisfitError
from lightning_xt.exchange.pretrained.shape_choice import fit_shape
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.projections.multi_head import MultiHead
from lightning_xt.training.language_model import LanguageModel
from lightning_xt.training.optim.build import build_scaled

BASE = 64
ADAMW = {"class_path": "AdamW", "init_args": {"lr": 4e-3, "weight_decay": 0.1}}
MUON = {"class_path": "MuonAdamW", "init_args": {"lr": 0.02, "adamw_lr": 4e-3}}
OPTIMIZERS = {"AdamW": ADAMW, "MuonAdamW": MUON}
VARIANTS = sorted((Path(__file__).parents[2] / "configs" / "variants").glob("*.yaml"))


def make(dim=2 * BASE, *, mup=BASE, optimizer=ADAMW, objective=None, **decoder):
    decoder = {"dim": dim, "depth": 2, "attention": {"heads": 4}, **decoder}
    objective = {} if objective is None else {"objective": objective}
    return LanguageModel.from_config({"decoder": decoder, "optimizer": optimizer, "mup_base_dim": mup, **objective})


def build(model):
    return build_scaled(model.optimizer_factory, model, "it")


def collect_options(model, option="lr"):
    """Return an option of the optimizer's group of each parameter, by the parameter's name."""
    groups = build(model).param_groups
    return {name.removeprefix("decoder."): group[option] for group in groups for name in group["param_names"]}


def train(model, steps, seed=0):
    optimizer = build(model)
    tokens = torch.randint(0, 256, (4, 33), generator=torch.Generator().manual_seed(seed))
    for _ in range(steps):
        optimizer.zero_grad()
        model(tokens).backward()
        optimizer.step()
    return tokens


def measure_sizes(width, mup, optimizer, seeds):
    """Return the mean size of the outputs of each sublayer and of the logits after four steps, by name."""
    sizes = {}
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = make(width, mup=mup, optimizer=optimizer)
        tokens = train(model, 4, seed)
        for name, part in model.network.named_modules():
            if name.endswith(("to_out", "to_logits")):
                part.register_forward_hook(
                    lambda _, __, out, name=name: sizes.setdefault(name, []).append(out.abs().mean().item())
                )
        with torch.no_grad():
            model(tokens)
    assert len(sizes) == 5
    return {name: sum(found) / len(found) for name, found in sizes.items()}


def find_spread(widths, mup, optimizer, seeds):
    """Return the largest relative distance of a size from its mean over the widths."""
    sizes = [measure_sizes(width, mup, optimizer, seeds) for width in widths]
    spreads = []
    for name in sizes[0]:
        found = torch.tensor([each[name] for each in sizes])
        spreads.append((found / found.mean() - 1).abs().max().item())
    return max(spreads)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_sizes_do_not_depend_on_the_width(name):
    """The coordinate check: 64 to 256; without muP the logits grow with the width."""
    assert find_spread((64, 256), BASE, OPTIMIZERS[name], 1) < 0.2
    assert find_spread((64, 256), None, OPTIMIZERS[name], 1) > 0.4


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_sizes_do_not_depend_on_the_width_from_64_to_512(name):
    assert find_spread((64, 128, 256, 512), BASE, OPTIMIZERS[name], 3) < 0.2
    assert find_spread((64, 128, 256, 512), None, OPTIMIZERS[name], 3) > 0.5


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nothing_changes_at_the_base_width(name):
    found = []
    for mup in (None, BASE):
        torch.manual_seed(0)
        model = make(BASE, mup=mup, optimizer=OPTIMIZERS[name])
        train(model, 3)
        found.append(model.state_dict())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_factors_of_adamw():
    model = make(feedforward={"bias": True}, attention={"heads": 4, "output_mods": ["HeadGate"]})
    rates, decays = collect_options(model), collect_options(model, "weight_decay")
    for name, rate in rates.items():
        halved = name.endswith("weight") and "norm" not in name and "embedding" not in name
        assert rate == (2e-3 if halved else 4e-3), name
        # As much decays a step, whatever the width.
        assert decays[name] * rate == pytest.approx(4e-4 if decays[name] else 0)
    gates = [name for name in rates if "gate" in name and name.endswith("weight")]
    assert len(gates) == 2 and any(name.endswith("bias") for name in rates)
    assert rates["head.to_logits.weight"] == 2e-3 and rates["token_embedding.weight"] == 4e-3


def test_a_query_that_is_compared_with_normed_vectors_is_a_linear_map():
    rates = collect_options(make(links=["DepthAttention"], optimizer=MUON))
    queries = {name: rate for name, rate in rates.items() if name.endswith("query")}
    assert len(queries) == 4 and set(queries.values()) == {2e-3}


def test_products_that_a_position_adds_have_the_scale_of_the_scores():
    model = make(attention={"heads": 4, "position": "PaTH"}, depth=1).double()
    (attention,) = (part for part in model.modules() if isinstance(part, Attention))
    x, where = (
        torch.randn(1, 5, 128, dtype=torch.double),
        Where.from_sequence(5, causal=True, inputs=Inputs(), lengths=None, device=torch.device("cpu")),
    )
    (made,) = attention(x, where, Inputs(), Trace(keeps_maps=True), None)[1].maps
    q, k, _ = attention.projection.project(x)
    known = attention.position.prepare(x, where, None, None, Trace())
    key = k[0, 1, 2]
    for w, beta in ((each[:-1], each[-1]) for each in known[0, 1, 3:5]):
        key = key - beta * w * (w @ key)
    assert attention.projection.scale == pytest.approx(16**0.5 / 32)
    torch.testing.assert_close(made.scores[0, 1, 4, 2], attention.projection.scale * q[0, 1, 4] @ key)


def list_scales(model):
    return [part.scale for part in model.modules() if isinstance(part, MultiHead)]


def test_scores_are_divided_by_the_width_of_heads():
    # Heads are 16 and 32 wide; or 16 as at the base width.
    assert list_scales(make(BASE)) == [1 / 4] * 2
    assert list_scales(make()) == [pytest.approx(16**0.5 / 32)] * 2
    assert list_scales(make(attention={"heads": 4, "dim_head": 16})) == [1 / 4] * 2


@pytest.mark.parametrize(
    ("rule", "hidden", "up", "down"), [("original", 1, 0.5**0.5, 1), ("match_rms_adamw", 0.5**0.5, 0.5, 1)]
)
def test_factors_of_muon(rule, hidden, up, down):
    optimizer = {"class_path": "MuonAdamW", "init_args": {**MUON["init_args"], "adjust_lr_fn": rule}}
    # The hidden features do not grow: from 64 to 64 and from 128 to 64, and the other way round.
    rates = collect_options(make(optimizer=optimizer, feedforward={"hidden_dim": 64}))
    for name, rate in rates.items():
        if "attention.branch" in name and "norm" not in name:
            assert rate == pytest.approx(0.02 * hidden), name
        elif "feedforward" in name and "norm" not in name:
            assert rate == pytest.approx(0.02 * (down if "to_out" in name else up)), name
    assert rates["head.to_logits.weight"] == 2e-3 and rates["token_embedding.weight"] == 4e-3


@pytest.mark.parametrize("rule", ["original", "match_rms_adamw"])
def test_a_step_of_muon_is_as_large_as_it_says(rule):
    init = {**MUON["init_args"], "adjust_lr_fn": rule, "weight_decay": 0.0, "orthogonalizer": "PolarExpress"}
    model = make(mup=None, depth=1, optimizer={"class_path": "MuonAdamW", "init_args": init}).double()
    optimizer = build(model)
    group = next(group for group in optimizer.param_groups if group["role"] == "matrix")
    # The maps of one weight are stepped separately.
    members = [p for name, p in zip(group["param_names"], group["params"], strict=True) if name not in group["parts"]]
    before = [p.detach().clone() for p in members]
    for p in group["params"]:
        p.grad = torch.randn_like(p)
    optimizer.step()
    shapes = {tuple(p.shape) for p in members}
    assert len(shapes) == 3
    for p, old in zip(members, before, strict=True):
        largest = torch.linalg.matrix_norm(p.detach() - old, 2).item()
        assert largest == pytest.approx(0.02 * optimizer.measure_step(group, *p.shape), rel=0.15)


def test_a_copy_and_a_resumed_run_keep_the_rates(tmp_path):
    model = make(optimizer=MUON)
    assert collect_options(deepcopy(model)) == collect_options(model)
    rates, path = [], str(tmp_path / "run.ckpt")
    wanted = [group["lr"] for group in build(model).param_groups]
    assert sorted(set(wanted)) == [2e-3, 4e-3, 0.02]
    for steps, resumed in ((2, None), (4, path)):
        again = make(optimizer=MUON)
        trainer = Trainer(**QUIET, max_steps=steps)
        trainer.fit(again, Parity(min_length=3, batch_size=2, validation_size=2), ckpt_path=resumed)
        rates.append([group["initial_lr"] for group in trainer.optimizers[0].param_groups])
        if resumed is None:
            trainer.save_checkpoint(path)
    assert rates[0] == rates[1] == wanted
    loaded = LanguageModel.load_from_checkpoint(path)
    tokens = torch.arange(9)[None]
    assert loaded.hparams["mup_base_dim"] == BASE
    again.load_state_dict(loaded.state_dict())
    assert torch.equal(loaded.eval().network(tokens), again.eval().network(tokens))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mup": 0}, "model has mup_base_dim 0, which must be at least 1"),
        (
            {"mup": 62},
            r"model.mup_base_dim 62: the decoder cannot be built at this width: .*; choose another width, or",
        ),
        ({"head": "TiedHead"}, r"head: TiedHead shares the table of the embedding, .* set --model.decoder.head Untied"),
        (
            {"attention": {"heads": 4, "score": {"class_path": "DotProduct", "init_args": {"scale": 1.0}}}},
            "score: DotProduct has a scale, which the width decides; omit the scale, or omit --model.mup_base_dim",
        ),
        (
            {"attention": {"heads": 4, "qk_norm": "UnitNorm"}},
            "UnitNorm gives vectors a length whose growth with the width has no rule; choose another norm, such as RMS",
        ),
        (
            {"embedding_dim": 8},
            "embedding_dim makes one map serve before the first layer .*; omit embedding_dim, or om",
        ),
        (
            {"attention": {"class_path": "DeltaNet", "init_args": {"heads": 4}}},
            "attention: DeltaNet is a recurrence, for whose state there is no rule; set --model.decoder.attention Att",
        ),
        (
            {"shift": "Canon"},
            r"model.mup_base_dim: stack.* \(4, 128\) grows with the width, but is neither a linear map nor a vector",
        ),
    ],
)
def test_parts_without_a_rule_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_shapes_of_transformers_do_not_hold_its_scores():
    llama = {"attention": {"heads": 4}, "feedforward": "SwiGLU"}
    model = make(**llama)
    with pytest.raises(MisfitError, match=r"it divides the scores of attention by the width of its heads \(model\.mup"):
        fit_shape(ExportedModel("it", model, ExportOptions(torch.float32)))
    shape, _ = fit_shape(ExportedModel("it", make(BASE, **llama), ExportOptions(torch.float32)))
    assert shape.label == "Llama"


def test_adapters_are_refused():
    with pytest.raises(ValueError, match=r"model\.mup_base_dim: an adapter trains in the place of the network's maps"):
        LanguageModel.from_config({"decoder": {"dim": 64, "depth": 1}, "mup_base_dim": 32, "adapter": "LoRA"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "SOAPAdamW"}, "no rule for the steps of SOAPAdamW; set --model.optimizer AdamW or MuonAdamW"),
        (
            {"optimizer": {"class_path": "SGD", "init_args": {"lr": 0.1}}},
            "model.mup_base_dim: there is no rule for the steps of SGD; set --model.optimizer AdamW or MuonAdamW",
        ),
        (
            {"optimizer": {"class_path": "Adam", "init_args": {"lr": 0.1, "weight_decay": 0.2}}},
            "model.mup_base_dim: Adam adds weight_decay 0.2 times the weights to their gradient, for which there is no",
        ),
        (
            {
                "objective": {
                    "class_path": "NextToken",
                    "init_args": {"auxiliaries": [{"class_path": "MultiTokenPrediction", "init_args": {}}]},
                }
            },
            "there is no rule for the learning rate of objective.*, which is not a part of the network",
        ),
    ],
)
def test_optimizers_and_objectives_without_a_rule_are_refused(options, message):
    model = make(**options)
    with pytest.raises(ValueError, match=message):
        build(model)


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.2, "decoupled_weight_decay": True}])
def test_adam_has_a_rule_where_its_decay_is_separate(options):
    optimizer, twin = (
        build(make(optimizer={"class_path": name, "init_args": {"lr": 0.1, "weight_decay": 0.0, **given}}))
        for name, given in (("Adam", options), ("AdamW", {"weight_decay": options.get("weight_decay", 0.0)}))
    )
    for group, other in zip(optimizer.param_groups, twin.param_groups, strict=True):
        assert (group["lr"], group["weight_decay"]) == (other["lr"], other["weight_decay"])


@pytest.mark.slow
@pytest.mark.parametrize("overlay", VARIANTS, ids=lambda file: file.stem)
def test_a_variant_trains_or_is_refused_by_a_sentence(overlay):
    config = yaml.safe_load(overlay.read_text())["model"]["init_args"]
    decoder = {"dim": 96, "depth": 4, "attention": {"heads": 4}, **config.get("decoder", {})}
    refusal = ""
    try:
        model = LanguageModel.from_config({**config, "decoder": decoder, "mup_base_dim": 48})
        build(model)
    except ValueError as error:
        refusal = str(error)
    assert refusal.startswith("model.mup_base_dim") or (not refusal and train(model, 2) is not None)
