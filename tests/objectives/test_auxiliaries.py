"""Auxiliary losses by hand, their gradients, and the z-loss of the logits."""

import math
from functools import partial

import pytest
import torch
from catalogue import VOCAB, attention, decoder, list_variants, randomise
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.packed_documents import find_documents
from lightning_xt.core.shapes import ObjectiveShape
from lightning_xt.core.trace import Trace
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.feedforward.deep_embed import DeepEmbed
from lightning_xt.nn.feedforward.mixture_of_experts import MixtureOfExperts
from lightning_xt.nn.passes.exit_loops import ExitLoops
from lightning_xt.objectives.auxiliaries.base import Auxiliary
from lightning_xt.objectives.auxiliaries.exit_gate import ExitGate
from lightning_xt.objectives.auxiliaries.multi_token_prediction import MultiTokenPrediction
from lightning_xt.objectives.auxiliaries.next_embedding import NextEmbedding
from lightning_xt.objectives.base import Objective
from lightning_xt.objectives.cross_entropy import compute_logit_z_loss
from lightning_xt.objectives.forgetful_next_token import ForgetfulNextToken
from lightning_xt.objectives.next_token import NextToken

SMALL = partial(MultiTokenPrediction, num_tokens=3, attention=partial(Attention, heads=2, dim_head=4))
MAKERS = {MultiTokenPrediction: SMALL, NextEmbedding: NextEmbedding, ExitGate: ExitGate}
LOOPS = partial(ExitLoops, passes=3)
"""Of which ExitGate needs several."""


def shape_of(model: Decoder) -> ObjectiveShape:
    return ObjectiveShape(vocab_size=VOCAB, token_embedding=model.token_embedding, head=model.head)


def build(*auxiliaries: type[Auxiliary] | partial[Auxiliary], **options: float) -> tuple[Decoder, NextToken]:
    """Build a decoder and an objective with noise on all parameters."""
    model = randomise(partial(decoder, passes=LOOPS))
    objective = NextToken(shape_of(model), auxiliaries=auxiliaries, **options).double()
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model, objective


TOKENS = torch.randint(0, VOCAB, (2, 8), generator=torch.Generator().manual_seed(1))


def surprises(logits: Tensor, targets: Tensor) -> Tensor:
    return -logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]


def test_each_further_token_has_a_layer_before_the_head() -> None:
    model, objective = build(SMALL)
    loss = objective(model, TOKENS)
    (own,) = objective.auxiliaries
    states, read = model.compute_states(TOKENS[:, :-1]), Inputs()
    expected = 0.0
    for distance, layer in enumerate(own.layers, 1):
        # The attention of a layer is causal, so that cutting its input changes nothing.
        hidden = run_layer(layer, states[:, : 7 - distance], read)
        expected += surprises(model.head(hidden), TOKENS[:, 1 + distance :]).mean().item()
    assert loss.terms["multi_token"].item() == pytest.approx(expected, rel=1e-6)
    assert loss.mean.item() == pytest.approx(surprises(model(TOKENS[:, :-1]), TOKENS[:, 1:]).mean().item(), rel=1e-12)
    assert loss.minimised.item() == pytest.approx(loss.mean.item() + expected, rel=1e-6)
    half = NextToken(shape_of(model), auxiliaries=[partial(SMALL, weight=0.5)]).double()
    half.load_state_dict(objective.state_dict())
    assert half(model, TOKENS).terms["multi_token"].item() == pytest.approx(expected / 2, rel=1e-6)


def run_layer(layer: nn.Module, states: Tensor, inputs: Inputs) -> Tensor:
    from lightning_xt.core.trace import Trace
    from lightning_xt.core.where import Where

    n = states.shape[1]
    where = Where.from_sequence(n, causal=True, inputs=inputs, lengths=None, device=states.device)
    return layer(states, where, inputs, Trace(), None)[0]


def test_further_tokens_are_those_that_count() -> None:
    """Ignored and unscored targets count for no head, and neither do tokens beyond the row or the document."""
    model, objective = build(SMALL)
    tokens, scored = TOKENS.clone(), torch.ones(2, 7, dtype=torch.bool)
    tokens[0, 7] = -100
    scored[1, 2] = False
    separator = 3
    tokens[tokens == separator] = 4
    tokens[1, 5] = separator
    documents = find_documents(tokens[:, :-1], separator)
    (own,) = objective.auxiliaries
    states = model.compute_states(tokens[:, :-1].clamp(min=0), inputs=Inputs(documents=documents))
    expected = 0.0
    for distance, layer in enumerate(own.layers, 1):
        scores = model.head(run_layer(layer, states, Inputs(documents=documents)))
        each = [
            surprises(scores[row, place], tokens[row, place + 1 + distance]).item()
            for row in range(2)
            for place in range(7 - distance)
            if tokens[row, place + 1 + distance] >= 0
            and scored[row, place + distance]
            and documents[row, place] == documents[row, place + distance]
        ]
        # Of 6 and 5 places: one ignored and one unscored target, and those that look over the separator at 5.
        assert len(each) == 2 * (7 - distance) - 1 - 1 - distance
        expected += sum(each) / len(each)
    loss = objective(model, tokens, scored, Inputs(documents=documents))
    assert loss.terms["multi_token"].item() == pytest.approx(expected, rel=1e-6)


def test_more_tokens_than_a_row_has() -> None:
    model, objective = build(partial(SMALL, num_tokens=12))
    loss = objective(model, TOKENS)
    assert torch.isfinite(loss.terms["multi_token"])
    loss.minimised.backward()


def test_the_next_embedding_by_hand() -> None:
    model, objective = build(NextEmbedding)
    tokens = TOKENS.clone()
    tokens[1, 7] = -100
    loss = objective(model, tokens)
    (own,) = objective.auxiliaries
    states = model.compute_states(tokens[:, :-1])
    hidden = states @ own.to_hidden.weight.T
    predicted = (hidden * hidden.sigmoid()) @ own.to_embedding.weight.T
    wanted = model.token_embedding.weight[tokens[:, 1:].clamp(min=0)]
    each = (predicted - wanted).abs().mean(-1).flatten()[:-1]
    assert loss.terms["next_embedding"].item() == pytest.approx(0.1 * each.mean().item(), rel=1e-5)


def test_embeddings_get_no_gradient_as_targets() -> None:
    model, objective = build(NextEmbedding)
    (own,) = objective.auxiliaries
    states = torch.randn(2, 7, model.token_embedding.embedding_dim, dtype=torch.float64, requires_grad=True)
    own(states, TOKENS[:, 1:], None).backward()
    assert model.token_embedding.weight.grad is None
    assert states.grad.abs().sum() > 0


def test_the_loss_expected_over_exits_by_hand() -> None:
    model, objective = build(partial(ExitGate, entropy_weight=0.2))
    tokens, (own,) = TOKENS.clone(), objective.auxiliaries
    tokens[1, 7] = -100
    _, trace = model(tokens[:, :-1], trace=Trace())
    expected = []
    for row, place in [(row, place) for row in range(2) for place in range(7) if tokens[row, place + 1] >= 0]:
        stays, probabilities, losses = 1.0, [], []
        for number, states in enumerate(trace.exits):
            leaves = torch.sigmoid(states[row, place] @ own.to_gate + own.bias).item() if number < 2 else 1.0
            probabilities.append(stays * leaves)
            stays *= 1 - leaves
            losses.append(surprises(model.head(states), tokens[:, 1:].clamp(min=0))[row, place].item())
        assert sum(probabilities) == pytest.approx(1.0)
        entropy = -sum(p * math.log(p) for p in probabilities)
        expected.append(sum(p * each for p, each in zip(probabilities, losses, strict=True)) - 0.2 * entropy)
    assert objective(model, tokens).minimised.item() == pytest.approx(sum(expected) / 13, rel=1e-9)


def test_a_fresh_gate_is_half_open() -> None:
    gate = ExitGate(shape_of(decoder()))
    exits = [torch.randn(2, 7, 13) for _ in range(3)]
    assert gate.compute_log_probs(exits)[:, 0, 0].exp().tolist() == pytest.approx([0.5, 0.25, 0.25])


def test_a_gate_is_precise_under_autocast() -> None:
    gate = ExitGate(shape_of(decoder()))
    with torch.no_grad():
        gate.to_gate.normal_()
    exits = [torch.randn(2, 7, 13) for _ in range(3)]
    expected = gate.compute_log_probs(exits)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gate.compute_log_probs(exits)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


def test_a_gate_of_no_probability_has_finite_gradients() -> None:
    model, objective = build(ExitGate)
    (own,) = objective.auxiliaries
    with torch.no_grad():
        own.bias.fill_(-2000.0)
    objective(model, TOKENS).minimised.backward()
    assert all(each.grad.isfinite().all() for each in (*own.parameters(), *model.parameters()))


def test_the_head_runs_once_for_each_exit() -> None:
    model, objective = build(ExitGate)
    calls: list[int] = []
    model.head.register_forward_hook(lambda module, args, out: calls.append(1))
    objective(model, TOKENS)
    assert len(calls) == 3
    (own,) = objective.auxiliaries
    with pytest.raises(NotImplementedError, match=r"^ExitGate reads all exits of a trace, not the states of one"):
        own(model.compute_states(TOKENS[:, :-1]), TOKENS[:, 1:], None)


def test_a_gate_without_exits_is_refused() -> None:
    model = decoder()
    with pytest.raises(
        ValueError, match=r"^auxiliaries: ExitGate chooses .*, but the model has 0; give the network pas"
    ):
        NextToken(shape_of(model), auxiliaries=[ExitGate])(model, TOKENS)


@pytest.mark.parametrize("kind", list_variants(Auxiliary))
def test_token_vectors_may_be_narrower_than_the_stream(kind: type[Auxiliary]) -> None:
    model = decoder(embedding_dim=6, passes=LOOPS)
    objective = NextToken(shape_of(model), auxiliaries=[MAKERS[kind]])
    objective(model, TOKENS).minimised.backward()
    assert all(each.grad is not None for each in objective.parameters())


@pytest.mark.parametrize("kind", list_variants(Auxiliary))
def test_gradients_reach_the_model_and_all_own_parameters(kind: type[Auxiliary]) -> None:
    model, objective = build(MAKERS[kind])
    objective(model, TOKENS).terms[kind.name].backward()
    parameters = {**dict(objective.named_parameters()), **dict(model.stack.named_parameters())}
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in parameters.values())


@pytest.mark.parametrize("kind", list_variants(Auxiliary))
def test_evaluation_and_parameters_of_the_model_stay_as_they_are(kind: type[Auxiliary]) -> None:
    model, objective = build(MAKERS[kind], z_loss=0.1)
    names = {name for name, _ in objective.named_parameters()}
    # The head and the table belong to the model.
    assert names and not any("token_embedding" in name or "to_logits" in name for name in names)
    assert objective.eval()(model, TOKENS).terms == {}
    assert not hasattr(model, "auxiliaries")


def test_the_z_loss_by_hand() -> None:
    model, objective = build(z_loss=1e-2)
    tokens, scored = TOKENS.clone(), torch.ones(2, 7, dtype=torch.bool)
    tokens[0, 4], scored[1, :3] = -100, False
    loss = objective(model, tokens, scored)
    logits = model(tokens[:, :-1].clamp(min=0))
    each = [
        math.log(sum(math.exp(x) for x in logits[row, place].tolist())) ** 2
        for row in range(2)
        for place in range(7)
        if scored[row, place] and (row, place) != (0, 3)
    ]
    assert len(each) == 10
    assert loss.terms["logit_z_loss"].item() == pytest.approx(1e-2 * sum(each) / 10, rel=1e-6)
    plain = NextToken(shape_of(model))(model, tokens, scored)
    assert torch.equal(loss.mean, plain.mean) and torch.equal(loss.total, plain.total) and plain.terms == {}
    assert loss.minimised.item() == pytest.approx(plain.mean.item() + loss.terms["logit_z_loss"].item(), rel=1e-12)


def test_a_z_loss_pulls_the_normalizer_to_one() -> None:
    logits = (torch.randn(1, 5, VOCAB) + 7).requires_grad_()
    targets = torch.randint(0, VOCAB, (1, 5))
    for _ in range(300):
        (gradient,) = torch.autograd.grad(compute_logit_z_loss(logits, targets), logits)
        logits = (logits - 2 * gradient).detach().requires_grad_()
    assert logits.logsumexp(-1).abs().max() < 0.05
    assert compute_logit_z_loss(logits, torch.full_like(targets, -100)).item() == 0


@pytest.mark.parametrize(("objective", "soft"), [(NextToken, 0), (NextToken, 2), (ForgetfulNextToken, 0)])
def test_ignored_tokens_count_in_no_term_of_a_part(objective: type[Objective], soft: int) -> None:
    """Rows that -100 fills up have the terms of rows whose padding is not scored, and soft tokens do not count."""
    torch.manual_seed(0)
    model = randomise(partial(decoder, attention=attention(z_loss=1.0), feedforward=MixtureOfExperts)).train()
    inputs = Inputs(prefix=torch.randn(2, soft, 13, dtype=torch.float64)) if soft else None
    tokens, scored = TOKENS.clone(), torch.ones(2, 7, dtype=torch.bool)
    tokens[0, 5:], scored[0, 4:] = 0, False
    ignored = tokens.clone()
    ignored[0, 5:] = -100
    kept = {"max_fraction": 0.0} if objective is ForgetfulNextToken else {}
    terms = [
        objective(shape_of(model), **kept)(model, *given, inputs).terms for given in ((tokens, scored), (ignored, None))
    ]
    assert terms[0].keys() == {"attention_z_loss", "balance_loss", "router_z_loss"}
    for name, value in terms[0].items():
        assert terms[1][name].item() == pytest.approx(value.item()), name


def test_terms_add_up() -> None:
    model, objective = build(SMALL, NextEmbedding, z_loss=0.1, label_smoothing=0.1)
    loss = objective(model, TOKENS)
    assert loss.terms.keys() == {"multi_token", "next_embedding", "logit_z_loss"}
    assert loss.minimised.item() == pytest.approx(
        loss.mean.item() + sum(each.item() for each in loss.terms.values()), rel=1e-6
    )
    assert loss.logits.shape == (2, 7, VOCAB)


def test_refuses_invalid_options() -> None:
    model = decoder()
    for make, message in (
        (
            partial(MultiTokenPrediction, num_tokens=1),
            "MultiTokenPrediction has num_tokens 1, which must be at least 2",
        ),
        (
            partial(MultiTokenPrediction, attention=partial(Attention, heads=2, dim_head=4), feedforward=DeepEmbed),
            "MultiTokenPrediction has layers with DeepEmbed, which reads token ids, .* choose another part",
        ),
        (partial(MultiTokenPrediction, weight=0.0), r"MultiTokenPrediction has weight 0\.0, which must be above 0"),
        (partial(NextEmbedding, weight=-1.0), r"NextEmbedding has weight -1\.0, which must be above 0"),
        (partial(ExitGate, entropy_weight=-1.0), r"ExitGate has entropy_weight -1\.0, which must be at least 0"),
    ):
        with pytest.raises(ValueError, match=f"^auxiliaries: {message}"):
            make(shape_of(model))
    with pytest.raises(ValueError, match=r"^objective: NextToken has z_loss -0\.1, which must be at least 0"):
        NextToken(shape_of(model), z_loss=-0.1)
    with pytest.raises(ValueError, match="has the auxiliaries NextEmbedding, NextEmbedding; give NextEmbedding once"):
        NextToken(shape_of(model), auxiliaries=[NextEmbedding, NextEmbedding])
