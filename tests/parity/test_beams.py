"""Beam search finds the sequences and scores of x-transformers'.

Theirs knows no end token, and all sequences are equally long, so that no length penalty changes their order.
"""

import pytest
import torch
from parity.comparisons import CLOSE
from parity.copier import copy_model
from parity.reference import build, in_float64, x_transformers
from parity.rows import SOURCE_VOCAB, VOCAB, list_decoders, list_pairs
from torch import Tensor

from lightning_xt import BeamSearch, LanguageModel, Seq2Seq
from lightning_xt.generation.engine import run_requests
from lightning_xt.generation.requests import Request, SamplingParams

BEAMS, NEW = 3, 6
DECODERS = {row.name: row for row in list_decoders()}
PAIRS = {row.name: row for row in list_pairs()}


def search(model: torch.nn.Module, requests: list[Request]) -> list[tuple[list[list[int]], Tensor]]:
    """Return the sequences and scores of each request."""
    method = BeamSearch(beams=BEAMS, n_best=BEAMS, length_penalty=0)
    found = run_requests(model, requests, SamplingParams(batch=BEAMS * len(requests)), method)
    return [
        ([each.tokens for each in best], torch.tensor([each.score for each in best], dtype=torch.float64))
        for best in found
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "rotary", "grouped heads", "memory", "alibi"])
def test_beams_of_a_decoder(name: str):
    theirs = build(DECODERS[name].theirs).eval()
    decoder = LanguageModel.from_config(DECODERS[name].ours).double().eval().decoder
    copy_model(theirs, decoder)
    prompts = torch.randint(VOCAB, (2, 4))
    with in_float64():
        wrapped = x_transformers.AutoregressiveWrapper(theirs)
        sequences, scores = wrapped.beam_search(prompts, NEW, beams=BEAMS, return_beams_and_scores=True)
    requests = [Request(prompt=prompt, max_new_tokens=NEW) for prompt in prompts]
    for row, (tokens, found) in enumerate(search(decoder, requests)):
        assert tokens == sequences[:, row].tolist()
        torch.testing.assert_close(found, scores[:, row], **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "rotary in self-attention", "alibi"])
def test_beams_of_an_encoder_decoder(name: str):
    theirs = build(PAIRS[name].theirs).eval()
    network = Seq2Seq.from_config(PAIRS[name].ours).double().eval().network
    copy_model(theirs, network)
    src, start = torch.randint(3, min(VOCAB, SOURCE_VOCAB), (2, 9)), torch.ones(2, 1, dtype=torch.long)
    mask = torch.arange(9) < torch.tensor([[9], [6]])
    with in_float64():
        context = theirs.encoder(src, mask=mask, return_embeddings=True)
        options = {"beams": BEAMS, "return_beams_and_scores": True}
        expected = [
            theirs.decoder.beam_search(
                start[row : row + 1], NEW, context=context[row : row + 1], context_mask=mask[row : row + 1], **options
            )
            for row in range(2)
        ]
    requests = [
        Request(prompt=start[row], max_new_tokens=NEW, inputs=network.encode(src[row : row + 1], mask[row : row + 1]))
        for row in range(2)
    ]
    for (tokens, found), (sequences, scores) in zip(search(network.decoder, requests), expected, strict=True):
        assert tokens == sequences[:, 0].tolist()
        torch.testing.assert_close(found, scores[:, 0], **CLOSE)


@pytest.mark.slow
def test_beams_of_a_batch():
    theirs = build(PAIRS["plain"].theirs).eval()
    network = Seq2Seq.from_config(PAIRS["plain"].ours).double().eval().network
    copy_model(theirs, network)
    src, start = torch.randint(3, VOCAB, (2, 9)), torch.ones(2, 1, dtype=torch.long)
    with in_float64(), pytest.raises(RuntimeError):
        theirs.decoder.beam_search(start, NEW, beams=BEAMS, context=theirs.encoder(src))
    requests = [
        Request(prompt=start[row], max_new_tokens=NEW, inputs=network.encode(src[row : row + 1])) for row in (0, 1)
    ]
    assert search(network.decoder, requests)[1][0] == search(network.decoder, requests[1:])[0][0]
