"""Filling of gaps, each with the most likely token, from the visible text alone."""

from functools import partial

import pytest
import torch
from made_tokenizers import content

from lightning_xt.core.inputs import Inputs
from lightning_xt.data.prompt_files import number_prompts
from lightning_xt.data.tokenizers.bytes import Bytes
from lightning_xt.data.tokenizers.special_bytes import SpecialBytes
from lightning_xt.data.tokenizers.tokenizer_file import TokenizerFile
from lightning_xt.inference.gap_filling import GapFiller
from lightning_xt.models.encoder import Encoder
from lightning_xt.models.encoder_with_head import EncoderWithHead
from lightning_xt.nn.embeddings.learned_positions import LearnedPositions

PROMPTS = ["the [MASK]uick", "[MASK]", "br[MASK]wn [MASK][MASK]x", "a[MASK]"]


def build(tokenizer, **options):
    torch.manual_seed(1)
    model = EncoderWithHead(tokenizer.vocab_size, encoder=partial(Encoder, dim=16, depth=1, **options)).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return GapFiller(model, tokenizer)


def test_gaps_are_filled_by_the_most_likely_tokens():
    filler = build(Bytes())
    results = filler.fill(number_prompts(PROMPTS), candidates=3)
    assert [each["prompt"] for each in results] == PROMPTS and [each["id"] for each in results] == [0, 1, 2, 3]
    ids = torch.tensor([[*b"br", 256, *b"wn ", 256, 256, *b"x"]])
    expected = filler.model(ids)[0, [2, 6, 7]].softmax(-1)
    for gap, probabilities in zip(results[2]["gaps"], expected, strict=True):
        best = probabilities.topk(3)
        assert [each["token"] for each in gap] == best.indices.tolist()
        assert [each["probability"] for each in gap] == pytest.approx(best.values.tolist(), rel=1e-3)
        assert [each["text"] for each in gap] == [Bytes().decode([token]) for token in best.indices.tolist()]
    first, second, third = (gap[0]["token"] for gap in results[2]["gaps"])
    assert results[2]["text"] == Bytes().decode([*b"br", first, *b"wn ", second, third, *b"x"])


def test_a_result_does_not_depend_on_the_batch():
    filler = build(Bytes())
    together = filler.fill(number_prompts(PROMPTS))
    assert filler.fill(number_prompts(PROMPTS), batch=1) == together == filler.fill(number_prompts(PROMPTS), batch=3)
    assert all(len(gap) == 5 for each in together for gap in each["gaps"])
    assert filler.fill([]) == []


def test_special_ids_fill_no_gap():
    tokenizer = SpecialBytes()
    filler = build(tokenizer)
    with torch.no_grad():
        filler.model.encoder.token_embedding.weight[:3] *= 100
    (result,) = filler.fill(number_prompts(["a[MASK]"]), candidates=259)
    tokens = {each["token"] for each in result["gaps"][0]}
    assert not tokens & {tokenizer.pad, tokenizer.start, tokenizer.end}
    assert result["text"].startswith("a")
    assert sum(each["probability"] for each in result["gaps"][0]) == pytest.approx(1, rel=1e-2)


def test_tokens_are_spelled_as_in_the_middle_of_a_text():
    tokenizer = TokenizerFile(model=content("bert"))
    (result,) = build(tokenizer).fill(number_prompts(["the [MASK] sat"]), candidates=tokenizer.vocab_size)
    found = {each["token"]: each["text"] for each in result["gaps"][0]}
    assert found[tokenizer.encode("cat")[0]] == " cat"
    assert not any(each.startswith("##") for each in found.values())


def test_the_mode_of_the_model_is_restored():
    filler = build(Bytes(), dropout=0.9)
    filler.model.train()
    assert filler.fill(number_prompts(PROMPTS)) == filler.fill(number_prompts(PROMPTS))
    assert filler.model.training


def test_refuses_prompts_without_gaps_and_too_long_ones():
    filler = build(Bytes(), embeddings=[partial(LearnedPositions, max_length=5)])
    with pytest.raises(ValueError, match=r"^the prompt 'abc' has no gap to fill; put \[MASK\] in the place of a token"):
        filler.fill(number_prompts(["a[MASK]", "abc"]))
    with pytest.raises(ValueError, match=r"has 6 tokens, but the model's positions reach only 5 \(max_length\)"):
        filler.fill(number_prompts(["abcde[MASK]"]))


def test_prompts_beyond_the_training_data_are_reported():
    filler = build(Bytes())
    assert filler.find_excess(PROMPTS) is None
    filler.trained_length = 8
    assert filler.find_excess(PROMPTS) is None
    filler.trained_length = 7
    assert filler.find_excess(PROMPTS).startswith("prompts reach 9 tokens, but the model was trained on sequences of 7")
    assert filler.model(torch.zeros(1, 9, dtype=torch.long), inputs=Inputs()).shape == (1, 9, 256)
