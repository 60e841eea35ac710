"""Every variant of the catalogue as an exported step: traced with free sizes and exact, or refused by name."""

import re
from collections.abc import Callable

import pytest
import torch
from catalogue import ALL, VOCAB, randomise
from encoder_catalogue import PAIRS, parametrize, source
from torch import Tensor, nn

from lightning_xt.exchange.misfit import MisfitError
from lightning_xt.exchange.step.step_checks import check_network
from lightning_xt.exchange.step.step_program import build_programs

N, ROWS = 8, 3
REFUSED = (
    "whose memories are made between steps|reads Inputs\\((condition|types|context)=...\\), which an exported step"
)
"""Reasons of refusals in messages."""
TARGETS = torch.randint(0, VOCAB, (ROWS, N), generator=torch.Generator().manual_seed(3))

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_shape_checks")]


@torch.no_grad()
def decode(network: nn.Module, *given: Tensor) -> Tensor:
    """Decode the targets by the traced programs of a network: several tokens at once, then one by one."""
    programs = build_programs(check_network(network, "it", "model"), N + 4)
    *encoder, step = [each.trace().module() for each in programs]
    context = [given[1], *encoder[0](*given)] if given else []
    cache = [port.example for port in programs[-1].inputs if port.role == "cache"]
    cache = [each.new_zeros(ROWS, *each.shape[1:]) for each in cache]
    logits, at = [], 0
    for n in (4, 1, 2, 1):
        made, *cache = step(TARGETS[:, at : at + n], torch.full((ROWS,), at), *context, *cache)
        logits.append(made)
        at += n
    return torch.cat(logits, dim=1)


def find_refusal(network: nn.Module) -> str | None:
    """Return the message that refuses a network; None if it is exported."""
    try:
        check_network(network, "it", "model")
    except MisfitError as error:
        return str(error)
    return None


def check(build: Callable[[], nn.Module], *given: Tensor) -> None:
    network = randomise(build)
    refusal = find_refusal(network)
    if refusal is not None:
        assert re.search(REFUSED, refusal)
        return
    expected = network(*given[:1], TARGETS, *given[1:])
    torch.testing.assert_close(decode(network, *given), expected, rtol=1e-9, atol=1e-9)


@ALL
def test_a_decoder_is_traced_or_refused(build: Callable[[], nn.Module]) -> None:
    check(build)


@parametrize(PAIRS)
def test_an_encoder_decoder_is_traced_or_refused(build: Callable[[], nn.Module]) -> None:
    check(build, *source(ROWS, 7))
