"""Embeddings by their tables."""

import math
import re
from functools import partial

import pytest
import torch
from catalogue import VOCAB, decoder, randomise

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import LayerShape
from lightning_xt.core.where import Where
from lightning_xt.nn.embeddings.bigram_table import BigramTable
from lightning_xt.nn.embeddings.embedding_norm import EmbeddingNorm
from lightning_xt.nn.embeddings.embedding_scale import EmbeddingScale
from lightning_xt.nn.embeddings.gradient_fraction import GradientFraction
from lightning_xt.nn.embeddings.learned_positions import LearnedPositions
from lightning_xt.nn.embeddings.sinusoidal_positions import SinusoidalPositions
from lightning_xt.nn.embeddings.smear import Smear
from lightning_xt.nn.embeddings.type_embedding import TypeEmbedding
from lightning_xt.nn.norms.layer_norm import LayerNorm


def where(n: int, inputs: Inputs) -> Where:
    return Where.from_sequence(n, causal=True, inputs=inputs, lengths=None, device=torch.device("cpu"))


def test_learned_positions_add_the_row_of_the_position() -> None:
    embedding = LearnedPositions(LayerShape(dim=3), max_length=7)
    x = torch.randn(2, 5, 3)
    out = embedding(x, where(5, Inputs()), Inputs())
    for n in range(5):
        torch.testing.assert_close(out[:, n], x[:, n] + embedding.table.weight[n])


def test_learned_positions_restart_with_each_document() -> None:
    embedding = LearnedPositions(LayerShape(dim=3), max_length=7)
    inputs = Inputs(documents=torch.tensor([[1, 1, 2, 2, 2], [4, 4, 4, 4, 9]]))
    added = embedding(torch.zeros(2, 5, 3), where(5, inputs), inputs)
    for row, positions in enumerate([[0, 1, 0, 1, 2], [0, 1, 2, 3, 0]]):
        for n, position in enumerate(positions):
            assert torch.equal(added[row, n], embedding.table.weight[position])


def test_learned_positions_reach_only_so_far() -> None:
    embedding = LearnedPositions(LayerShape(dim=3), max_length=4)
    embedding(torch.zeros(1, 4, 3), where(4, Inputs()), Inputs())
    with pytest.raises(ValueError, match=r"embeddings: LearnedPositions has max_length 4, .* 5 tokens long") as error:
        embedding(torch.zeros(1, 5, 3), where(5, Inputs()), Inputs())
    assert "shorten it, or train with a larger max_length" in str(error.value)


def test_learned_positions_stop_decoding_at_their_end() -> None:
    model = decoder(embeddings=[partial(LearnedPositions, max_length=4)])
    cache = model.new_cache(1, 7)
    model(torch.zeros(1, 4, dtype=torch.long), cache=cache)
    with pytest.raises(ValueError, match=r"max_length 4, .* 5 tokens long"):
        model(torch.zeros(1, 1, dtype=torch.long), cache=cache)


def test_a_model_reaches_as_far_as_its_shortest_table() -> None:
    assert decoder().max_length is None
    assert decoder(embeddings=[TypeEmbedding]).max_length is None
    short, long = partial(LearnedPositions, max_length=5), partial(LearnedPositions, max_length=7)
    assert decoder(embeddings=[long, short]).max_length == 5


def test_type_embedding_adds_the_row_of_the_type() -> None:
    embedding = TypeEmbedding(LayerShape(dim=3), num_types=5)
    x, types = torch.randn(2, 3, 3), torch.tensor([[0, 4, 2], [1, 1, 3]])
    out = embedding(x, where(3, Inputs()), Inputs(types=types))
    for b in range(2):
        for n in range(3):
            torch.testing.assert_close(out[b, n], x[b, n] + embedding.table.weight[types[b, n]])


def test_type_embedding_asks_for_types() -> None:
    with pytest.raises(ValueError, match=re.escape("TypeEmbedding needs Inputs(types=...)")):
        TypeEmbedding(LayerShape(dim=3))(torch.randn(2, 3, 3), where(3, Inputs()), Inputs())


def test_cases_p10_documents_may_be_longer_together_than_the_table() -> None:
    model = randomise(lambda: decoder(embeddings=[partial(LearnedPositions, max_length=4)]))
    tokens = torch.randint(0, VOCAB, (1, 9), generator=torch.Generator().manual_seed(3))
    documents = torch.tensor([[0, 0, 0, 0, 1, 1, 2, 2, 2]])
    with torch.no_grad():
        packed = model(tokens, inputs=Inputs(documents=documents))
        for each in (slice(0, 4), slice(4, 6), slice(6, 9)):
            torch.testing.assert_close(packed[:, each], model(tokens[:, each]))
        with pytest.raises(ValueError, match=r"LearnedPositions has max_length 4, .* from 0 to 4; .* the documents"):
            model(tokens, inputs=Inputs(documents=torch.tensor([[0] * 5 + [1] * 4])))


def test_positions_outside_the_table_are_refused() -> None:
    model, positions = decoder(embeddings=[partial(LearnedPositions, max_length=4)]), torch.arange(4)[None]
    tokens, rule = torch.zeros(1, 4, dtype=torch.long), "has max_length 4, so positions are 0 to 3"
    assert model(tokens, inputs=Inputs(positions=positions)).isfinite().all()
    for given, named in ((positions * 300, "from 0 to 900; give others"), (positions - 1, "from -1 to 2; give others")):
        with pytest.raises(ValueError, match=f"{rule}, but tokens have positions {named}"):
            model(tokens, inputs=Inputs(positions=given))


@pytest.mark.parametrize("length", [37, 40, 64])
def test_cases_p10_compiled_steps_reach_the_end_of_a_table(length: int) -> None:
    """Steps over a static cache, which compiled decoding has, go as far as others."""
    model = randomise(lambda: decoder(embeddings=[partial(LearnedPositions, max_length=length)]))
    tokens = torch.randint(0, VOCAB, (2, length + 1), generator=torch.Generator().manual_seed(3))
    cache = model.new_cache(2, length + 1, static=True)
    with torch.no_grad():
        logits = [model(tokens[:, : length - 4], cache=cache)]
        logits += [model(tokens[:, at : at + 1], cache=cache) for at in range(length - 4, length)]
        torch.testing.assert_close(torch.cat(logits, dim=1), model(tokens[:, :length]))
        with pytest.raises(
            ValueError, match=rf"LearnedPositions has max_length {length}, but .* is {length + 1} tokens"
        ):
            model(tokens[:, length:], cache=cache)


def test_cases_p10_positions_are_counted_by_real_tokens() -> None:
    model = randomise(lambda: decoder(embeddings=[partial(LearnedPositions, max_length=6)]))
    tokens = torch.randint(0, VOCAB, (2, 6), generator=torch.Generator().manual_seed(3))
    cache, logits = model.new_cache(2, 12), []
    with torch.no_grad():
        for at in range(0, 6, 2):
            padded = torch.cat((tokens[:, at : at + 2], torch.zeros(2, 3, dtype=torch.long)), dim=1)
            logits.append(model(padded, lengths=torch.tensor([2, 2]), cache=cache)[:, :2])
        torch.testing.assert_close(torch.cat(logits, dim=1), model(tokens))


def smear(dim: int) -> Smear:
    """Build a Smear whose gate is 2 sigmoid(x_0)."""
    embedding = Smear(LayerShape(dim=dim))
    with torch.no_grad():
        embedding.strength.fill_(2.0)
        embedding.gate[0] = 1.0
    return embedding


def test_smear_adds_a_gated_part_of_the_token_before() -> None:
    x = torch.tensor([[[0.0, 1.0], [math.log(3.0), 5.0], [0.0, 7.0]]])
    added = smear(2)(x, where(3, Inputs()), Inputs()) - x
    # Sigmoids of 0 and of log 3: 1/2 and 3/4.
    torch.testing.assert_close(added, torch.tensor([[[0.0, 0.0], [0.0, 1.5], [math.log(3.0), 5.0]]]))


def test_smear_stays_within_documents_and_reads_no_masked_token() -> None:
    x = torch.tensor([[[0.0, 1.0], [0.0, 2.0], [0.0, 3.0], [0.0, 4.0]]])
    for inputs, expected in (
        (Inputs(documents=torch.tensor([[3, 3, 5, 5]])), [0.0, 1.0, 0.0, 3.0]),
        (Inputs(hidden_tokens=torch.tensor([[False, True, False, False]])), [0.0, 1.0, 0.0, 3.0]),
    ):
        added = smear(2)(x, where(4, inputs), inputs) - x
        assert added[0, :, 1].tolist() == expected


def test_smear_starts_as_the_identity_and_reads_the_first_twelve_features() -> None:
    x = torch.randn(1, 3, 17)
    embedding = Smear(LayerShape(dim=17))
    assert torch.equal(embedding(x, where(3, Inputs()), Inputs()), x)
    assert embedding.gate.shape == (12,) and Smear(LayerShape(dim=5)).gate.shape == (5,)
    with pytest.raises(ValueError, match="embeddings: Smear has num_features 0, which must be at least 1"):
        Smear(LayerShape(dim=5), num_features=0)


@pytest.mark.parametrize("dim", [4, 5])
def test_sinusoidal_positions_are_those_of_the_paper_with_sines_first(dim: int) -> None:
    embedding = SinusoidalPositions(LayerShape(dim=dim), learned_scale=False)
    inputs = Inputs(documents=torch.tensor([[0, 0, 0, 1, 1]]))
    added = embedding(torch.zeros(1, 5, dim, dtype=torch.float64), where(5, inputs), inputs)
    pairs = (dim + 1) // 2
    for n, position in enumerate([0, 1, 2, 0, 1]):
        for d in range(dim):
            angle = position * 10_000.0 ** (-2 * (d % pairs) / dim)
            expected = math.sin(angle) if d < pairs else math.cos(angle)
            assert added[0, n, d].item() == pytest.approx(expected, abs=1e-6)


def test_sinusoidal_positions_have_a_learned_scale_and_precise_angles() -> None:
    embedding = SinusoidalPositions(LayerShape(dim=16))
    assert embedding.scale.item() == pytest.approx(1 / 4)
    low = SinusoidalPositions(LayerShape(dim=16), learned_scale=False).bfloat16()
    added = low(torch.zeros(1, 1001, 16, dtype=torch.bfloat16), where(1001, Inputs()), Inputs())
    assert added[0, 1000, 0].item() == pytest.approx(math.sin(1000), abs=0.01)
    with pytest.raises(ValueError, match=r"embeddings: SinusoidalPositions has base 0\.0, which must be above 0"):
        SinusoidalPositions(LayerShape(dim=16), base=0.0)


def test_embedding_norm_norms_what_stands_before_it() -> None:
    x = torch.tensor([[[3.0, 4.0]]])
    embedding = EmbeddingNorm(LayerShape(dim=2))
    rms = (12.5) ** 0.5
    torch.testing.assert_close(embedding(x, where(1, Inputs()), Inputs()), x / rms)
    other = EmbeddingNorm(LayerShape(dim=2), norm=LayerNorm)
    torch.testing.assert_close(other(x, where(1, Inputs()), Inputs()), torch.tensor([[[-1.0, 1.0]]]), atol=1e-4, rtol=0)


def test_gradient_fraction_changes_the_gradient_alone() -> None:
    x = torch.randn(2, 3, 4, requires_grad=True)
    out = GradientFraction(LayerShape(dim=4), fraction=0.25)(x, where(3, Inputs()), Inputs())
    assert out.equal(x)
    out.sum().backward()
    assert x.grad.unique().tolist() == [0.25]
    for fraction in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"GradientFraction has fraction {fraction}, which must be above 0 and at"):
            GradientFraction(LayerShape(dim=4), fraction=fraction)


def test_bigram_table_adds_the_row_of_the_pair() -> None:
    embedding = BigramTable(LayerShape(dim=3, vocab_size=5))
    assert embedding.table.shape == (25, 3) and embedding.table.abs().max() == 0
    torch.nn.init.normal_(embedding.table)
    tokens, documents = torch.tensor([[4, 0, 3, 3, 1]]), torch.tensor([[7, 7, 7, 9, 9]])
    inputs = Inputs(tokens=tokens, documents=documents)
    added = embedding(torch.zeros(1, 5, 3), where(5, inputs), inputs)
    assert added[0, [0, 3]].abs().max() == 0, "no token before the first one of a document"
    for n, row in ((1, 4 * 5 + 0), (2, 0 * 5 + 3), (4, 3 * 5 + 1)):
        torch.testing.assert_close(added[0, n], 0.1 * embedding.table[row])


def test_bigram_table_hashes_the_pairs_of_a_large_vocabulary() -> None:
    assert BigramTable(LayerShape(dim=3, vocab_size=256)).exact
    embedding = BigramTable(LayerShape(dim=1, vocab_size=5000), max_rows=97)
    with torch.no_grad():
        embedding.table.copy_(torch.arange(97.0)[:, None])
        embedding.strength.fill_(1.0)
    inputs = Inputs(tokens=torch.tensor([[4999, 1234, 4999]]))
    added = embedding(torch.zeros(1, 3, 1), where(3, inputs), inputs)[0, :, 0]
    assert added.tolist() == [0, ((36_313 * 1234) ^ (27_191 * 4999)) % 97, ((36_313 * 4999) ^ (27_191 * 1234)) % 97]
    with pytest.raises(ValueError, match="embeddings: BigramTable has max_rows 0, which must be at least 1"):
        BigramTable(LayerShape(dim=1, vocab_size=5), max_rows=0)


def test_bigram_table_has_no_pairs_of_soft_tokens() -> None:
    model = decoder(embeddings=[BigramTable])
    with pytest.raises(ValueError, match="BigramTable reads token ids, which soft tokens do not have"):
        model(
            torch.zeros(1, 3, dtype=torch.long),
            inputs=Inputs(prefix=torch.zeros(1, 2, model.token_embedding.weight.shape[1])),
        )


def test_embedding_scale_multiplies_by_the_root_of_the_width() -> None:
    x = torch.tensor([[[1.0, -2.0, 0.5, 3.0]]])
    inputs = Inputs()
    assert EmbeddingScale(LayerShape(dim=4))(x, where(1, inputs), inputs).tolist() == [[[2.0, -4.0, 1.0, 6.0]]]
    scale = EmbeddingScale(LayerShape(dim=4), factor=3.0)
    assert scale(x, where(1, inputs), inputs).tolist() == [[[3.0, -6.0, 1.5, 9.0]]]
    with pytest.raises(ValueError, match=r"EmbeddingScale has factor 0\.0, which must be above 0"):
        EmbeddingScale(LayerShape(dim=4), factor=0.0)
