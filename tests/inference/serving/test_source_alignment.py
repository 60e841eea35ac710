"""Alignments of translations to their sources."""

from dataclasses import replace
from functools import partial
from unittest.mock import Mock

import pytest
import torch
from served_models import Client, make_engine, make_translator

from lightning_xt.data.tokenizers.special_bytes import SpecialBytes
from lightning_xt.generation.methods.beam_search import BeamSearch
from lightning_xt.inference.attention_maps import compute_attention_maps
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.serving.events import StepError
from lightning_xt.inference.serving.serving_engine import Engine
from lightning_xt.inference.serving.source_alignment import list_token_texts
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.normalizers.sigmoid import Sigmoid

pytestmark = pytest.mark.usefixtures("no_shape_checks")
BEAMS = GenerationOptions(max_new_tokens=6, method=partial(BeamSearch, beams=3, n_best=3))


@pytest.mark.parametrize("options", [BEAMS, GenerationOptions(max_new_tokens=6)], ids=["beams", "greedy"])
def test_an_alignment_is_the_mean_attention_of_the_places_that_predict(options):
    engine, client = make_engine(), Client()
    engine.translate("pairs", "3 9 4", options, client, alignment=True)
    found = client.finish().candidates
    engine.close()
    translator, source = make_translator(), [3, 9, 4, 2]
    assert len(found.completions) == len(found.alignments) == (3 if options is BEAMS else 1)
    for completion, alignment in zip(found.completions, found.alignments, strict=True):
        assert [text.strip() for text in alignment.source_tokens] == ["3", "9", "4", "</s>"]
        texts = [text for text in alignment.target_tokens if text != "</s>"]
        assert "".join(texts) == completion.text and len(alignment.target_tokens) == len(completion.tokens)
        maps = compute_attention_maps(
            translator.network, torch.tensor([[1, *completion.tokens[:-1]]]), source=torch.tensor([source])
        )
        assert torch.tensor(alignment.weights).double().allclose(maps.stack("cross").mean(dim=(0, 2))[0])
        assert torch.tensor(alignment.weights).sum(dim=-1).allclose(torch.ones(len(completion.tokens)))


@pytest.mark.parametrize("memory", [0, 2])
def test_rows_sum_to_one_with_weights_that_do_not(memory):
    cross = partial(Attention, heads=2, normalizer=Sigmoid, **({"memory": memory} if memory else {}))
    engine, client = Engine({"pairs": make_translator(cross_attention=cross)}), Client()
    engine.translate("pairs", "3 9", replace(BEAMS, max_new_tokens=4), client, alignment=True)
    engine.start()
    weights = torch.tensor(client.finish().candidates.alignments[0].weights)
    engine.close()
    assert weights.shape[1] == 3 and weights.sum(dim=-1).allclose(torch.ones(len(weights)))
    assert bool((weights >= 0).all())


def test_a_network_without_weights_of_cross_attention_is_refused(monkeypatch):
    maps = "lightning_xt.inference.serving.source_alignment.compute_attention_maps"
    found = compute_attention_maps(make_translator().network, torch.tensor([[1]]), source=torch.tensor([[3, 4]]))
    monkeypatch.setattr(maps, lambda *_, **__: replace(found, cross=()))
    engine = make_engine(start=False)
    assert not engine.has_alignment("pairs")
    with pytest.raises(ValueError, match="the model has no alignment: its cross-attention has no weights"):
        engine.translate("pairs", "3", BEAMS, Client(), alignment=True)
    wider = found.cross[0]._replace(weights=found.cross[0].weights[..., :1])
    monkeypatch.setattr(maps, lambda *_, **__: replace(found, cross=(wider,)))
    engine = make_engine(start=False)
    with pytest.raises(ValueError, match="weights over other vectors than the tokens of the source"):
        engine.translate("pairs", "3", BEAMS, Client(), alignment=True)


def test_a_model_is_checked_once_and_says_that_it_aligns(monkeypatch):
    engine = make_engine(start=False)
    assert engine.has_alignment("pairs") and not engine.has_alignment("lm")
    computed = Mock()
    monkeypatch.setattr("lightning_xt.inference.serving.source_alignment.compute_attention_maps", computed)
    for _ in range(2):
        engine.translate("pairs", "3", BEAMS, Client(), alignment=True)
    assert computed.call_count == 0


def test_others_decode_between_the_alignments_of_a_source():
    engine = make_engine(start=False)
    worker, order = engine._workers["pairs"], []
    aligned, other = (Client(lambda event, name=name: order.append(name)) for name in ("aligned", "other"))
    engine.translate("pairs", "3 9 4", BEAMS, aligned, alignment=True)
    engine._take_commands()
    with torch.inference_mode():
        while not worker._aligning.busy:
            worker.advance()
        engine.translate("pairs", "3 4", GenerationOptions(max_new_tokens=9, stop=["never"]), other)
        engine._take_commands()
        while worker.busy:
            worker.advance()
    assert len(aligned.candidates.alignments) == 3 and order.index("aligned") >= 2
    assert (
        other.finish().text()
        == make_translator().translate_texts("3 4", GenerationOptions())[0]["text"][: len(other.text())]
    )


def test_a_failed_alignment_ends_its_job_only(monkeypatch):
    maps = "lightning_xt.inference.serving.source_alignment.compute_attention_maps"
    engine, failed, cancelled = make_engine(), Client(), Client()
    with monkeypatch.context() as changed:
        changed.setattr(maps, Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory")))
        engine.translate("pairs", "3 9 4", BEAMS, failed, alignment=True)
        assert isinstance(failed.error, StepError)
    engine.translate("pairs", "3 9", BEAMS, cancelled, alignment=True).cancel()
    again = Client()
    engine.translate("pairs", "3 9 4", BEAMS, again, alignment=True)
    assert len(again.finish().candidates.alignments) == 3
    engine.drain()
    assert cancelled.events == [] and not engine._workers["pairs"].busy


def test_texts_of_tokens_are_together_the_text():
    tokenizer = SpecialBytes()
    ids = [*tokenizer.encode("a€b"), tokenizer.end]
    assert list_token_texts(tokenizer, ids, tokenizer.end) == ["a", "", "", "€", "b", "</s>"]
    cut = tokenizer.encode("a€")[:-1]
    assert list_token_texts(tokenizer, cut, None) == ["a", "", "\N{REPLACEMENT CHARACTER}"]
