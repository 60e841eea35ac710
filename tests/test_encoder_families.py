"""Laws of every variant in an encoder and in an encoder-decoder. New variants are found, not listed."""

import copy
import pickle
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from catalogue import DIM, VOCAB, Build, attention_layers, count_draws, crop, randomise, shared
from encoder_catalogue import (
    ACROSS,
    BACKWARD,
    BOTH_WAYS,
    PAIRS,
    SOURCES,
    make_inputs,
    parametrize,
    sized_decoder,
    sized_encoder,
    source,
)
from sampled_laws import sample
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.heads.tied_head import TiedHead

CHECKS_SHAPES = pytest.mark.checks_shapes
LOOKING = "(position|normalizer|score_mods|attention)"
"""Slots of parts that look back only."""
ENCODERS, SOME_ENCODERS = parametrize(BOTH_WAYS), sample("build", BOTH_WAYS)
BOTH, SOME = parametrize(PAIRS), sample("build", PAIRS)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10)


def targets(rows: int, n: int) -> Tensor:
    return torch.randint(0, VOCAB, (rows, n), generator=torch.Generator().manual_seed(17))


def replace_tokens(mask: Tensor, tokens: Tensor, words: int = SOURCES) -> Tensor:
    """Return the tokens, with others where the mask is True."""
    return torch.where(mask, (tokens + 1) % words, tokens)


# An encoder alone -----------------------------------------------------------------------------------------------------


@parametrize(BACKWARD)
def test_an_encoder_refuses_what_looks_back_only(build: Build) -> None:
    with pytest.raises(
        ValueError, match=rf"^{LOOKING}: \w+ .*, so it serves causal self-attention only; choose another"
    ):
        build()


@ENCODERS
def test_a_padded_source_equals_the_same_source_alone(build: Build) -> None:
    model, (tokens, mask), inputs = shared(build), source(2, 7), make_inputs(2, 7)
    with torch.no_grad():
        together = model(tokens, mask, inputs=inputs)
        close(model(replace_tokens(~mask, tokens), mask, inputs=inputs)[mask], together[mask])
        for row, length in enumerate((7, 4)):
            mine = slice(row, row + 1)
            alone = model(tokens[mine, :length], inputs=crop(inputs, slice(0, length), mine))
            close(together[mine, :length], alone)
    assert together.isfinite().all()


@SOME_ENCODERS
@torch.no_grad()
def test_documents_of_one_source_equal_each_alone(build: Build) -> None:
    model, tokens, inputs = shared(build), source(2, 7)[0], make_inputs(2, 7)
    together = model(tokens, inputs=replace(inputs, documents=torch.tensor([[0] * 3 + [1] * 4, [0] * 5 + [1] * 2])))
    for row, start in enumerate((3, 5)):
        mine = slice(row, row + 1)
        for document in (slice(0, start), slice(start, 7)):
            close(together[mine, document], model(tokens[mine, document], inputs=crop(inputs, document, mine)))


@SOME_ENCODERS
@CHECKS_SHAPES
@torch.no_grad()
def test_cases_p3_nothing_masked_is_read_wherever_it_stands(build: Build) -> None:
    """Left padding and holes. Positions stay: a source with a hole is not a shorter source."""
    model, (tokens, _), inputs = shared(build), source(3, 7), make_inputs(3, 7)
    mask = torch.tensor([[True, False, True, True, False, False, True], [False, True, True, False, True, False, False]])
    mask = torch.cat((mask, torch.arange(7)[None] > 2))
    before = model(tokens, mask, inputs=inputs)
    after = model(replace_tokens(~mask, tokens), mask, inputs=inputs)
    assert before.isfinite().all()
    assert (after - before)[mask].abs().max() < 1e-10
    assert (after - before)[~mask].abs().max() > 1e-6


@ENCODERS
def test_a_token_of_a_source_sees_both_directions(build: Build) -> None:
    model, (tokens, _), inputs = randomise(build), source(2, 7), make_inputs(2, 7)
    reach = max((layer.window or 7 for layer in attention_layers(model)), default=7)
    embedded: list[Tensor] = []
    model.token_embedding.register_forward_hook(lambda module, args, out: embedded.append(out))
    hidden = model(tokens, inputs=inputs)
    for at, far in ((0, min(6, reach - 1)), (6, max(0, 7 - reach))):
        (gradient,) = torch.autograd.grad(hidden[:, at].square().sum(), embedded, retain_graph=True)
        assert (gradient[:, far].abs().amax(-1) > 0).all(), (at, far)


# An encoder and a decoder ---------------------------------------------------------------------------------------------


@BOTH
def test_padding_of_a_source_changes_no_logits(build: Build) -> None:
    model, (src, mask), tgt, inputs = shared(build), source(2, 7), targets(2, 5), make_inputs(2, 5)
    with torch.no_grad():
        together = model(src, tgt, mask, inputs=inputs)
        close(model(replace_tokens(~mask, src), tgt, mask, inputs=inputs), together)
        for row, length in enumerate((7, 4)):
            mine = slice(row, row + 1)
            close(
                model(src[mine, :length], tgt[mine], inputs=crop(inputs, slice(0, 5), mine)),
                together[mine],
            )
        assert (model(src, tgt, inputs=inputs) - together)[1].abs().max() > 1e-6, "the mask is not even read"


@SOME
@pytest.mark.parametrize("autocast", [False, True], ids=["bfloat16", "autocast"])
def test_cases_p1_a_source_that_is_all_padding_is_0_in_any_type(build: Build, autocast: bool) -> None:
    """The kernels of 16-bit numbers differ: for one query or several, in the encoder as in the decoder."""
    model, dtype = shared(build, torch.float32), torch.float32 if autocast else torch.bfloat16
    low, total = copy.deepcopy(model).to(dtype), 0.0
    for m, n in ((1, 1), (7, 3)):
        (src, mask), tgt, inputs = source(2, m), targets(2, n), make_inputs(2, n, torch.float32)
        mask[1] = False
        with torch.no_grad():
            expected = model(src, tgt, mask, inputs=inputs)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found = [low(each, tgt, mask, inputs=inputs) for each in (src, replace_tokens(~mask, src))]
        assert torch.equal(*found), "padding was read"
        error = (found[0].float() - expected)[1].norm() / expected[1].norm()
        assert error < 0.15, f"relative error {error:.3f}"
        total = total + found[0].float().square().sum()
    total.backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in low.parameters())


@SOME
@pytest.mark.parametrize("steps", [[1, 1, 4, 1, 2], pytest.param([1] * 9, marks=pytest.mark.slow)], ids=str)
def test_decoding_reads_the_context_once_and_equals_one_forward(build: Build, steps: list[int]) -> None:
    model, (src, mask), tgt, inputs = randomise(build), source(2, 7), targets(2, 9), make_inputs(2, 9)
    read, cache = count_reading(model), model.decoder.new_cache(2, 9, slack=2)
    logits, start = [], 0
    with torch.no_grad():
        given = model.encode(src, mask, inputs=inputs)
        for size in steps:
            piece = slice(start, start + size)
            # The context is cached, so later steps need none.
            known = given if start == 0 else replace(given, context=None, context_mask=None)
            logits.append(model.decoder(tgt[:, piece], inputs=crop(known, piece), cache=cache))
            start += size
        stack = model.decoder.stack
        across = sum("cross_attention" in (step.kind, *step.beside) for step in stack.steps)
        crossings = across * stack.calls // len(stack.steps)
        if model.decoder.segments is not None:
            # The second segment reads it too, and so does the forward that makes its memories.
            crossings *= 3
        assert len(read) == crossings
        close(torch.cat(logits, dim=1), model(src, tgt, mask, inputs=inputs))


def count_reading(model: EncoderDecoder) -> list[str]:
    """Return a list that grows whenever a layer of cross-attention computes keys and values of a context."""
    read: list[str] = []
    for name, module in model.decoder.named_modules():
        if isinstance(module, Attention) and module.shape.context_dim is not None:
            named = dict(module.projection.named_modules())
            (made,) = [named[path] for path in named if path.split(".")[-1] in ("to_kv", "to_latent")]
            made.register_forward_hook(lambda module, args, out, name=name: read.append(name))
    return read


@SOME
@CHECKS_SHAPES
def test_rows_of_different_lengths_decode_as_if_alone(build: Build) -> None:
    model, (src, mask), tgt, inputs = shared(build), source(2, 7), targets(2, 8), make_inputs(2, 8)
    lengths = [5, 2]
    with torch.no_grad():
        cache, given = model.decoder.new_cache(2, 8, slack=2), model.encode(src, mask, inputs=inputs)
        first = {"lengths": torch.tensor(lengths), "inputs": crop(given, slice(0, 5)), "last_only": True}
        logits = [model.decoder(tgt[:, :5], cache=cache, **first)]
        for step in range(3):
            at = torch.tensor(lengths)[:, None] + step
            known = Inputs(condition=inputs.condition, types=inputs.types.gather(1, at))
            logits.append(model.decoder(tgt.gather(1, at), inputs=known, cache=cache))
        for row, length in enumerate(lengths):
            mine, end = slice(row, row + 1), length + 3
            alone = model(src[mine], tgt[mine, :end], mask[mine], inputs=crop(inputs, slice(0, end), mine))
            close(torch.cat(logits, dim=1)[mine], alone[:, length - 1 :])


@parametrize(ACROSS)
@CHECKS_SHAPES
def test_cases_p6_rows_that_share_a_source_read_several_tokens_at_once(build: Build) -> None:
    """Two rows of each source continue differently, by 3 tokens and then by 2: speculation with beams."""
    model, (src, mask), inputs, lengths = shared(build), source(2, 7), make_inputs(2, 10), [5, 2]
    tgt = targets(4, 10)
    tgt[1, :5], tgt[3, :2] = tgt[0, :5], tgt[2, :2]
    owner, start = torch.tensor([0, 0, 1, 1]), torch.tensor([5, 5, 2, 2])[:, None]
    with torch.no_grad():
        cache, given = model.decoder.new_cache(2, 10, slack=3), model.encode(src, mask, inputs=inputs)
        known = crop(given, slice(0, 5))
        logits = [model.decoder(tgt[::2, :5], lengths=torch.tensor(lengths), inputs=known, cache=cache, last_only=True)]
        logits[0] = logits[0][owner]
        cache.repeat(2)
        for at in (start + torch.arange(3), start + torch.arange(3, 5)):
            known = Inputs(condition=inputs.condition[owner], types=inputs.types[owner].gather(1, at))
            logits.append(model.decoder(tgt.gather(1, at), inputs=known, cache=cache))
        for row, length in enumerate(start[:, 0].tolist()):
            mine, end = slice(int(owner[row]), int(owner[row]) + 1), length + 5
            alone = model(src[mine], tgt[row : row + 1, :end], mask[mine], inputs=crop(inputs, slice(0, end), mine))
            close(torch.cat(logits, dim=1)[row : row + 1], alone[:, length - 1 :])


@BOTH
def test_no_target_sees_a_later_one_and_all_see_the_whole_source(build: Build) -> None:
    model, (src, _), tgt, inputs = randomise(build), source(2, 7), targets(2, 6), make_inputs(2, 6)
    seen: dict[str, Tensor] = {}
    for name in ("encoder", "decoder"):
        getattr(model, name).token_embedding.register_forward_hook(
            lambda module, args, out, name=name: seen.update({name: out})
        )
    logits = model(src, tgt, inputs=inputs)
    sources, words = torch.autograd.grad(logits[:, 2].square().sum(), [seen["encoder"], seen["decoder"]])
    assert words[:, 3:].abs().max() == 0
    assert words[:, 2].abs().max() > 0
    assert (sources.abs().amax(-1) > 0).all()


@BOTH
def test_every_parameter_of_both_learns(build: Build) -> None:
    model, (src, mask) = randomise(build).train(), source(2, 7)
    # Memories are read from the second segment on.
    n = 6 if model.decoder.segments is None else model.decoder.segments.length + 3
    tgt, inputs = targets(2, n), make_inputs(2, n)
    for _ in range(count_draws(model)):
        model(src, tgt, mask, inputs=inputs).square().sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-12]
    assert idle == []
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@SOME
def test_the_fused_backend_agrees_with_the_explicit(build: Build) -> None:
    model, (src, mask), tgt, inputs = randomise(build), source(2, 7), targets(2, 6), make_inputs(2, 6)
    results = []
    for backend in ("explicit", "fused"):
        for layer in attention_layers(model):
            layer.backend = backend if backend in layer.supported_backends else "explicit"
        with torch.no_grad():
            results.append(model(src, tgt, mask, inputs=inputs))
    close(results[1], results[0])


def test_a_table_that_is_shared_and_tied_stays_one_tensor() -> None:
    def build() -> EncoderDecoder:
        encode, decode = partial(sized_encoder, dim=DIM), partial(sized_decoder, head=TiedHead)
        return EncoderDecoder(VOCAB, VOCAB, encoder=encode, decoder=decode, shared_embedding=True)

    model, (src, mask), tgt = randomise(build), source(2, 7), targets(2, 6)
    src = src % VOCAB
    fresh = build().double().eval()
    fresh.load_state_dict({name: value.clone() for name, value in model.state_dict().items()})
    for again in (model, fresh, copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.deepcopy(model).double()):
        tables = {again.encoder.token_embedding.weight, again.decoder.token_embedding.weight, again.decoder.head.weight}
        assert len(tables) == 1
        assert sum(parameter.shape == (VOCAB, DIM) for parameter in again.parameters()) == 1
        with torch.no_grad():
            close(again(src, tgt, mask), model(src, tgt, mask))


def test_compiles_without_a_break() -> None:
    """In another process: the run-time checks of shapes, which the tests switch on, cannot be traced."""
    run = run_traced("window", "normalizer=Sigmoid", "given_context-latent")
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout == "3 compiled\n"


@pytest.mark.slow
def test_every_variant_compiles_without_a_break() -> None:
    run = run_traced(*PAIRS)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout == f"{len(PAIRS)} compiled\n"


def run_traced(*names: str) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).with_name("traced_pairs.py")
    return subprocess.run([sys.executable, script, *names], capture_output=True, text=True, timeout=1500, check=False)
