"""Two options of x-transformers at once: `from-xt` prints a model with the same logits, or says what differs."""

import pytest
import torch
from parity.comparisons import CLOSE
from parity.copier import copy_model
from parity.models import compute
from parity.reference import build
from parity.rows import LENGTH, VOCAB, Row, list_combinations
from torch import Tensor, nn

from lightning_xt import Decoder
from lightning_xt.commands.catalogue.recipes import make_recipe
from lightning_xt.commands.x_transformers.architectures import translate
from lightning_xt.commands.x_transformers.config_text import check
from lightning_xt.commands.x_transformers.expression import parse
from lightning_xt.system.messages import UserError

GROUPS, SIZE = 8, 25
ROWS = list_combinations(GROUPS * SIZE, seed=0)


def build_theirs(row: Row, tokens: Tensor) -> nn.Module | None:
    """Return the model of x-transformers; None if it fails."""
    try:
        theirs = build(row.theirs, zeros=row.zeros).eval()
        compute(theirs, tokens)
    except (AssertionError, AttributeError, IndexError, RuntimeError):
        return None
    return theirs


def judge(row: Row) -> str:
    """Compare a model with the one that `from-xt` prints."""
    tokens = torch.randint(VOCAB, (2, LENGTH))
    theirs = build_theirs(row, tokens)
    if theirs is None:
        return "fails there"
    architecture = translate(parse(row.theirs))
    try:
        check(architecture)
    except UserError:
        return "refused"
    if architecture.remarks.missing:
        return "remarked"
    decoder = make_recipe(Decoder, architecture.options["decoder"])(VOCAB).double().eval()
    try:
        copy_model(theirs, decoder, row.zeros)
        torch.testing.assert_close(decoder(tokens), compute(theirs, tokens), **CLOSE)
    except AssertionError:
        if not architecture.remarks.differing:
            raise
        return "remarked"
    return "equal"


@pytest.mark.slow
@pytest.mark.parametrize("group", range(GROUPS))
def test_pairs_of_options_are_equal_or_remarked(group: int):
    verdicts = []
    for row in ROWS[group::GROUPS]:
        try:
            verdicts.append(judge(row))
        except (AssertionError, ValueError) as error:
            raise AssertionError(f"{row.name}: {row.theirs}: {error}") from error
    assert verdicts.count("equal") > SIZE // 2
