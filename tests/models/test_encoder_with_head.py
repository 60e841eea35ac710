"""Encoder with a head: logits of chosen places, a mask token that is read but never predicted."""

from functools import partial

import pytest
import torch
from catalogue import list_variants
from encoder_catalogue import sized_encoder

from lightning_xt.core.inputs import Inputs
from lightning_xt.models.encoder_with_head import EncoderWithHead
from lightning_xt.models.outline import outline
from lightning_xt.nn.heads.base import Head
from lightning_xt.nn.heads.tied_head import TiedHead
from lightning_xt.nn.heads.untied_head import UntiedHead

SIZE = 23


def build(head=TiedHead, **options):
    model = EncoderWithHead(SIZE, encoder=partial(sized_encoder, **options), head=head)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.double()


@pytest.mark.parametrize("head", [TiedHead, UntiedHead])
def test_scores_the_chosen_places_of_the_vocabulary(head):
    model, tokens = build(head), torch.randint(SIZE + 1, (2, 7))
    every, places = model(tokens), torch.tensor([[6, 0, 3], [2, 2, 5]])
    assert every.shape == (2, 7, SIZE)
    some = model(tokens, places=places)
    torch.testing.assert_close(some, torch.stack([every[row, places[row]] for row in range(2)]))
    table = model.encoder.token_embedding.weight if head is TiedHead else model.head.to_logits.weight
    torch.testing.assert_close(every, model.encoder(tokens) @ table[:SIZE].T)
    assert (model.vocab_size, model.mask_token) == (SIZE, SIZE)


@pytest.mark.parametrize("head", list_variants(Head))
def test_a_gradient_reaches_everything(head):
    model = build(head)
    tokens = torch.cat((torch.arange(SIZE + 1), torch.randint(SIZE, (4,)))).view(2, -1)
    places = torch.arange(14).expand(2, -1)
    logits = model(tokens, places=places)
    assert logits.shape == (2, 14, SIZE)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    # The vector of the mask token is trained, although nothing predicts it.
    assert model.encoder.token_embedding.weight.grad[SIZE].abs().sum() > 0


def test_the_first_loss_is_that_of_uniform_predictions():
    torch.manual_seed(0)
    logits = EncoderWithHead(SIZE, encoder=partial(sized_encoder), head=UntiedHead)(torch.randint(SIZE, (2, 7)))
    assert (logits == 0).all()


def test_padding_changes_nothing():
    model, tokens = build(), torch.randint(SIZE, (1, 7))
    padded = torch.cat((tokens, torch.randint(SIZE, (1, 4))), dim=1)
    hidden = torch.arange(11)[None] >= 7
    torch.testing.assert_close(model(padded, inputs=Inputs(hidden_tokens=hidden))[:, :7], model(tokens))


def test_an_outline_adds_up():
    stage = outline(build(UntiedHead), 7)
    assert (stage.name, stage.shape) == ("encoder_with_head", f"b n {SIZE}")
    assert [each.name for each in stage.stages] == ["encoder", "head"]
    assert stage.parameters == sum(each.numel() for each in build(UntiedHead).parameters())
