import math

import numpy as np
import pytest
import torch
from encoder_catalogue import pair, source

from lightning_xt.data.tokenizers.bpe import BPE
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.inference.figures.attention_figure import FONT, TITLE, draw_attention
from lightning_xt.inference.figures.attention_figure import MOST as CELL
from lightning_xt.inference.figures.canvas import Canvas, measure
from lightning_xt.inference.figures.loss_strip import draw_loss_strip
from lightning_xt.inference.figures.token_labels import label_tokens, label_vocabulary
from lightning_xt.inference.token_losses import compute_token_losses
from lightning_xt.models.decoder import Decoder


def test_labels_are_visible():
    text = "a \n\t\x07ü日"
    labels = ["a", "␣", "↵", "→", "\\x07", "·", "ü", "·", "·", "日"]
    assert label_tokens(Bytes(), text.encode()) == labels
    assert label_tokens(Bytes(), text.encode(), without_text="") == [label.replace("·", "") for label in labels]
    assert label_tokens(Bytes(), []) == []


def test_special_and_cut_characters_have_labels():
    cut = "ü".encode()[0]
    assert label_tokens(Bytes(separator=255), [255, 97, cut, 255, 98]) == ["⟨end⟩", "a", "\ufffd", "⟨end⟩", "b"]
    assert label_tokens(Bytes(), [97, cut]) == ["a", "\ufffd"]
    tokenizer = BPE(vocab_size=270)
    tokenizer.train(lambda: ["the cat the cat the cat"])
    assert label_tokens(tokenizer, [1, *tokenizer.encode("the cat"), 2, 0]) == [
        "⟨start⟩",
        *("the", "␣cat"),
        "⟨end⟩",
        "⟨pad⟩",
    ]
    labels = label_vocabulary(tokenizer, 270)
    assert len(set(labels)) == 270 and labels[0] == "⟨pad⟩"
    assert label_vocabulary(Bytes(), 256)[195:197] == ["\ufffd 195", "\ufffd 196"]


def test_a_causal_triangle_is_seen():
    weights = torch.full((2, 3, 3), 0.25).tril()
    weights[1, 2, 0] = 1.0
    image = draw_attention(weights, ["a", "b", "c"], ["a", "b", "c"], ["head 0", "head 1"])
    left = 10 + measure(["a"], FONT)
    middle = TITLE + np.arange(3) * CELL + CELL // 2
    panel = image[middle][:, left + np.arange(3) * CELL + CELL // 2].astype(int)
    grey = panel[0, 1]
    assert all((panel[i, j] == grey).all() == (j > i) for i in range(3) for j in range(3))
    assert len({tuple(panel[i, j]) for i in range(3) for j in range(i + 1)}) == 1
    # The second panel's largest weight is the darkest blue.
    dark = image[middle[2], left + 3 * CELL + 14 + CELL // 2].astype(int)
    assert dark.sum() < panel[0, 0].sum() and dark[2] > dark[0]


def test_negative_weights_are_red():
    image = draw_attention(torch.tensor([[[0.5, -0.5]]]), ["a"], ["long label", "b"], ["head 0"])
    row = image[TITLE + CELL // 2].astype(int)
    left = 10 + measure(["a"], FONT)
    positive, negative = row[left + CELL // 2], row[left + CELL + CELL // 2]
    assert positive[2] > positive[0] and negative[0] > negative[2]


def test_a_strip_is_redder_where_the_loss_is_larger():
    image = draw_loss_strip(
        ["a", "␣", "", "␣", "↵", "␣"], [math.nan, 1.0, 3.0, 4.0, 0.0, 8.0], most=8.0, title="step 1"
    )

    def ground(row, column):
        return image[28 + row * 18 + 2, 10 + column * 8 + 2].astype(int).tolist()

    # The loss of a token without text is that of the next one.
    expected = draw_loss_strip(["␣", "␣"], [7.0, 1.0], most=8.0)[30, [12, 20]].astype(int).tolist()
    assert (ground(0, 0), ground(0, 2), ground(0, 1)) == ([255, 255, 255], *expected)
    assert ground(0, 3) == [255, 255, 255] and ground(1, 0)[1] < ground(0, 2)[1] < ground(0, 1)[1]
    assert draw_loss_strip([], [], most=8.0).shape[2] == 3
    wide = draw_loss_strip(["x"] * 250, [1.0] * 250, most=8.0)
    assert wide.shape[:2] == (4 * 18 + 38, 100 * 8 + 90)


def test_labels_are_turned():
    canvas = Canvas(40, 40)
    canvas.write("abcd", 20, 0, 10, "mt", upright=True)
    dark = (canvas.pixels < 128).all(axis=2)
    rows, columns = dark.any(axis=1).nonzero()[0], dark.any(axis=0).nonzero()[0]
    assert np.ptp(rows) > 2 * np.ptp(columns) and not (Canvas(9, 9).pixels < 255).any()


@torch.no_grad()
def test_losses_of_tokens_are_those_of_the_sequence():
    torch.manual_seed(0)
    model = Decoder(11, dim=16, depth=1, dropout=0.5).train()
    tokens = torch.randint(0, 11, (2, 7))
    losses = compute_token_losses(model, tokens)
    assert losses.shape == (2, 6) and model.training
    expected = torch.nn.functional.cross_entropy(model.eval()(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    torch.testing.assert_close(losses.mean(), expected)


def test_a_source_belongs_to_an_encoder_decoder():
    src, mask = source(2, 7)
    tgt = torch.randint(0, 11, (2, 5))
    assert compute_token_losses(pair(), tgt, source=src, source_mask=mask).shape == (2, 4)
    with pytest.raises(ValueError, match="an encoder-decoder needs a source"):
        compute_token_losses(pair(), tgt)
    with pytest.raises(ValueError, match="Decoder reads no source; omit source"):
        compute_token_losses(pair().decoder, tgt, source=src)
