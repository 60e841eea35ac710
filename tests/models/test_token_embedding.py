"""Token vectors narrower than the stream."""

from functools import partial

import pytest
import torch
from catalogue import DIM, VOCAB, decoder, randomise
from encoder_catalogue import sized_decoder, sized_encoder

from lightning_xt.models.encoder_decoder import EncoderDecoder
from lightning_xt.models.encoder_with_head import EncoderWithHead
from lightning_xt.models.token_embedding import TokenEmbedding
from lightning_xt.nn.heads.tied_head import TiedHead
from lightning_xt.nn.heads.untied_head import UntiedHead


def test_a_narrow_table_is_mapped_to_the_stream_and_back() -> None:
    table, tokens = TokenEmbedding(7, 5, 3, "decoder"), torch.tensor([[2, 6]])
    narrow, matrix = table.weight[tokens], table.projection.weight
    assert matrix.shape == (5, 3)
    torch.testing.assert_close(table(tokens), narrow @ matrix.T)
    x = torch.randn(1, 2, 5)
    torch.testing.assert_close(table.map_back(x), x @ matrix)
    plain = TokenEmbedding(7, 5, None, "decoder")
    assert plain(tokens).equal(plain.weight[tokens]) and plain.map_back(x) is x


@pytest.mark.parametrize("head", [TiedHead, UntiedHead])
def test_heads_read_states_of_the_width_of_the_table(head: type) -> None:
    model = randomise(lambda: decoder(embedding_dim=3, head=head))
    states = model.compute_states(torch.zeros(1, 4, dtype=torch.long))
    assert states.shape == (1, 4, 3) and model.head(states).shape == (1, 4, VOCAB)
    assert model.token_embedding.weight.shape == (VOCAB, 3)
    assert (model.head(states).argmax(-1) < VOCAB).all()


def test_an_encoder_with_a_head_maps_back_too() -> None:
    model = EncoderWithHead(VOCAB, encoder=partial(sized_encoder, embedding_dim=3))
    assert model(torch.zeros(2, 5, dtype=torch.long)).shape == (2, 5, VOCAB)


def test_shared_tables_share_their_map() -> None:
    encode, decode = partial(sized_encoder, dim=DIM, embedding_dim=3), partial(sized_decoder, embedding_dim=3)
    model = EncoderDecoder(VOCAB, VOCAB, encoder=encode, decoder=decode, shared_embedding=True)
    assert model.encoder.token_embedding is model.decoder.token_embedding
    with pytest.raises(
        ValueError, match=r"model\.shared_embedding is on, .* give both the same vocabulary, dim and emb"
    ):
        EncoderDecoder(VOCAB, VOCAB, encoder=partial(encode, dim=DIM + 4), decoder=decode, shared_embedding=True)


def test_refuses_an_empty_table() -> None:
    with pytest.raises(ValueError, match="decoder has embedding_dim 0, which must be at least 1"):
        decoder(embedding_dim=0)
