"""Laws of a model with several variants, in as few forwards as they need."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from catalogue import VOCAB, example
from encoder_catalogue import SOURCES, make_inputs, source
from torch import Tensor, nn

from lightning_xt.core.inputs import Inputs
from lightning_xt.models.decoder import Decoder
from lightning_xt.models.encoder import Encoder
from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.normalizers.inverted import Inverted
from lightning_xt.nn.positions.relative_sinusoidal import RelativeSinusoidal

N, SHORT, CHANGED, FIRST = 9, 5, 5, 3
"""Tokens of a row, of a shorter one, the changed token, and tokens of a document before a shorter row."""
TRAINED, SEEN = 11, 10
"""Tokens of a row in training, and those whose logits are differentiated: more than one segment."""
M = 7
"""Tokens of a source."""
LENGTHS = (9, 6)
"""Tokens of the rows that are decoded."""
BATCHES = 16
"""Batches that may train a parameter at last."""


def check(kind: str, model: nn.Module, seed: str) -> None:
    """Hold a randomised model in evaluation mode to the laws; AssertionError if it breaks one."""
    laws = {"decoder": check_decoder, "encoder": check_encoder, "pair": check_encoder_decoder}
    laws[kind](model, random.Random(seed))


def close(law: str, actual: Tensor, expected: Tensor) -> None:
    difference, size = (actual - expected).abs().max().item(), expected.abs().max().item()
    assert difference <= 1e-10 + 1e-9 * size, f"{law}: off by {difference:.1e} of {size:.1e}"


def take(tokens: Tensor, inputs: Inputs, rows: Sequence[int], starts: Sequence[int], n: int) -> tuple[Tensor, Inputs]:
    """Return n tokens of some rows, each from its start on, and their inputs."""
    at, mine = torch.tensor(starts)[:, None] + torch.arange(n), torch.tensor(rows)
    cut = [None if each is None else each[mine] for each in (inputs.condition, inputs.context, inputs.context_mask)]
    types = None if inputs.types is None else inputs.types[mine].gather(1, at)
    return tokens[mine].gather(1, at), Inputs(types=types, condition=cut[0], context=cut[1], context_mask=cut[2])


# Decoder --------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def check_decoder(model: Decoder, rng: random.Random) -> None:
    tokens, inputs = example(3, N + SHORT)
    full = _check_values(model, tokens, inputs)
    call, known = take(tokens, inputs, [1, 0, 2], [0, FIRST, 0], SHORT)
    alone = model(call, inputs=known)
    call, known = take(tokens, inputs, [0, 1], [0, 0], N)
    padded = model(call, lengths=torch.tensor([N, SHORT]), inputs=known)
    close("padded = alone", padded[0], full[0])
    close("padded = alone", padded[1, :SHORT], alone[0])
    # Both documents of a row lie in one segment, since alone they do.
    call, known = take(tokens, inputs, [0, 2], [0, 0], FIRST + SHORT)
    later = torch.arange(FIRST + SHORT) >= torch.tensor([[FIRST], [SHORT]])
    apart = model(call, inputs=replace(known, documents=later.long()))
    close("documents apart = alone", apart[0, :FIRST], full[0, :FIRST])
    close("documents apart = alone", apart[0, FIRST:], alone[1])
    close("documents apart = alone", apart[1, :SHORT], alone[2])
    check_decoding(model, tokens, inputs, full, rng)
    call, known = take(tokens, inputs, [0, 1, 2], [0] * 3, TRAINED)
    check_gradients(model, model.token_embedding, lambda batch: model(_shift(call, batch, VOCAB), inputs=known))


def _check_values(model: Decoder, tokens: Tensor, inputs: Inputs) -> Tensor:
    """Check that a changed token changes its own logits and later ones only; return the logits of all rows."""
    call, known = take(tokens, inputs, [0, 1, 2, 0], [0] * 4, N)
    call[3, CHANGED] = (call[3, CHANGED] + 1) % VOCAB
    full: Tensor = model(call, inputs=known)
    assert full.isfinite().all(), "forward: not finite"
    close("causality by value", full[3, :CHANGED], full[0, :CHANGED])
    assert (full[3, CHANGED] - full[0, CHANGED]).abs().max() > 1e-6, "a token does not even see itself"
    return full


def check_decoding(model: Decoder, tokens: Tensor, inputs: Inputs, full: Tensor, rng: random.Random) -> None:
    """Check that two rows of different lengths, fed in pieces of random sizes, give the logits of one forward."""
    cuts = [[0, *sorted(rng.sample(range(1, length - 1), 2)), length - 1, length] for length in LENGTHS]
    cache = model.new_cache(2, N + SHORT, slack=rng.choice((3, 16)))
    for step in range(4):
        starts, sizes = [cut[step] for cut in cuts], [cut[step + 1] - cut[step] for cut in cuts]
        # A shorter row is padded with later tokens, which must not be read.
        call, known = take(tokens, inputs, [0, 1], starts, max(sizes))
        lengths = None if min(sizes) == max(sizes) else torch.tensor(sizes)
        made = model(call, lengths=lengths, inputs=known, cache=cache)
        for row, (start, size) in enumerate(zip(starts, sizes, strict=True)):
            close("cached = full", made[row, :size], full[row, start : start + size])


@torch.enable_grad()
def check_gradients(model: nn.Module, table: nn.Module, run: Callable[[int], Tensor], seen: int | None = SEEN) -> None:
    """Check that in training all gradients exist and are finite, and that no token after the seen ones has one.

    Experts that no token has chosen, weights that are 0 or 1, and parts that draw get another batch and smaller
    parameters. `run` takes the number of the batch.
    """
    embedded: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        out.retain_grad()
        embedded.append(out)

    hook = table.register_forward_hook(keep)
    model.train()
    idle: list[str] = []
    for batch in range(BATCHES):
        embedded.clear()
        made = run(batch)
        made[:, :seen].square().sum().backward()
        read = torch.cat([segment.grad for segment in embedded if segment.grad is not None], dim=1)
        assert seen is None or read[:, seen:].abs().max() == 0, "causality by gradient"
        gradients = {name: p.grad for name, p in model.named_parameters()}
        idle = [name for name, grad in gradients.items() if grad is None or not grad.abs().max() > 1e-12]
        if not idle:
            break
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.9)
    hook.remove()
    assert read[:, made[:, :seen].shape[1] - 1].abs().max() > 0, "a token does not even get its own gradient"
    assert set(idle) <= set(list_cancelled(model)), f"backward: no gradient for {', '.join(idle)}"
    if idle:
        _check_cancelled(model.eval(), idle, run)
    assert all(grad is not None and grad.isfinite().all() for grad in gradients.values()), "backward: not finite"


@torch.no_grad()
def _check_cancelled(model: nn.Module, names: Sequence[str], run: Callable[[int], Tensor]) -> None:
    """Check that parameters change nothing."""
    before = run(0)
    for name in names:
        model.get_parameter(name).add_(1.0)
    close("cancelled parameters", run(0), before)


def list_cancelled(model: nn.Module) -> list[str]:
    """List the parameters whose effect softmax cancels: what adds the same to all keys of a query.

    A softmax over queries cancels what adds the same to all queries of a key.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, Attention)}
    names = [f"{name}.k_norm.{each}" for name, layer in layers.items() for each in getattr(layer.k_norm, "shifts", ())]
    return names + [
        f"{name}.position.content_bias"
        for name, layer in layers.items()
        if isinstance(layer.normalizer, Inverted) and isinstance(layer.position, RelativeSinusoidal)
    ]


# Encoder --------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def check_encoder(model: Encoder, rng: random.Random) -> None:
    tokens = source(3, N)[0]
    inputs = make_inputs(3, N)
    mask = torch.arange(N) < torch.tensor([[N], [SHORT]])
    call, known = take(tokens, inputs, [0, 1], [0, 0], N)
    padded = model(call, mask, inputs=known)
    close("padded = alone", model((call + ~mask) % SOURCES, mask, inputs=known)[mask], padded[mask])
    full = model(tokens, inputs=inputs)
    assert full.isfinite().all(), "forward: not finite"
    call, known = take(tokens, inputs, [1, 0, 2], [0, N - SHORT, 0], SHORT)
    alone = model(call, inputs=known)
    close("padded = alone", padded[0], full[0])
    close("padded = alone", padded[1, :SHORT], alone[0])
    call, known = take(tokens, inputs, [0, 2], [0, 0], N)
    later = torch.arange(N) >= torch.tensor([[N - SHORT], [SHORT]])
    apart = model(call, inputs=replace(known, documents=later.long()))
    close("documents apart = alone", apart[0, N - SHORT :], alone[1])
    close("documents apart = alone", apart[1, :SHORT], alone[2])
    draw = partial(_shift, tokens, size=SOURCES)
    check_gradients(model, model.token_embedding, lambda batch: model(draw(batch), inputs=inputs), None)


# Encoder-decoder ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def check_encoder_decoder(model: EncoderDecoder, rng: random.Random) -> None:
    (src, _), (tgt, _), inputs = source(2, M), example(2, N + SHORT), make_inputs(2, N + SHORT)
    mask = torch.arange(M) < torch.tensor([[M], [SHORT]])
    rows = [0, 1, 0]
    call, known = take(tgt, inputs, rows, [0] * 3, N)
    call[2, CHANGED] = (call[2, CHANGED] + 1) % VOCAB
    full = model(src[rows], call, mask[rows], inputs=known)
    assert full.isfinite().all(), "forward: not finite"
    close("causality by value", full[2, :CHANGED], full[0, :CHANGED])
    assert (full[2, CHANGED] - full[0, CHANGED]).abs().max() > 1e-6, "a token does not even see itself"
    call, known = take(tgt, inputs, [1], [0], N)
    close("padded source = alone", model(src[1:, :SHORT], call, inputs=known)[0], full[1])
    call, known = take(tgt, inputs, [0, 1], [0, 0], N)
    close("padding is not read", model((src + ~mask) % SOURCES, call, mask, inputs=known), full[:2])
    check_decoding(model.decoder, tgt, model.encode(src, mask, inputs=inputs), full, rng)
    call, known = take(tgt, inputs, [0, 1], [0, 0], TRAINED)
    table = model.decoder.token_embedding
    check_gradients(model, table, lambda batch: model(_shift(src, batch, SOURCES), call, mask, inputs=known))


def _shift(tokens: Tensor, batch: int, size: int) -> Tensor:
    """Return other tokens for another batch."""
    return (tokens + batch * torch.arange(1, 1 + tokens.shape[1])) % size
