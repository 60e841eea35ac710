"""The prefix that all tokens of a row see: what counts, what is seen, and how such a model is evaluated and decoded."""

import math
from functools import partial

import pytest
import torch
from catalogue import VOCAB, decoder, randomise
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import ObjectiveShape
from lightning_xt.core.trace import Trace
from lightning_xt.data.text.windows import EvaluationWindows
from lightning_xt.data.tokenizers.special_bytes import SpecialBytes
from lightning_xt.generation.engine import generate
from lightning_xt.generation.models.quantized_weights import measure_loss
from lightning_xt.inference.conversation import Conversation
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.text_completer import TextCompleter
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.attention.attention import Attention
from lightning_xt.nn.mixers.delta_net import DeltaNet
from lightning_xt.nn.segments.memory_tokens import MemoryTokens
from lightning_xt.nn.segments.segment_recurrence import SegmentRecurrence
from lightning_xt.objectives.prefix_next_token import PrefixNextToken
from lightning_xt.training.language_model import LanguageModel

SHAPE = ObjectiveShape(vocab_size=VOCAB, token_embedding=torch.nn.Embedding(VOCAB, 8), head=torch.nn.Linear(8, VOCAB))


class Recorder:
    """Model of constant logits that records its inputs."""

    def __init__(self, rows: int, n: int) -> None:
        self.logits = torch.randn(rows, n, VOCAB, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        self.inputs: Inputs | None = None

    def __call__(self, tokens: Tensor, *, inputs: Inputs | None = None, trace: Trace) -> tuple[Tensor, Trace]:
        self.inputs = inputs
        return self.logits, trace


def draw(objective: PrefixNextToken, tokens: Tensor, seed: int | None) -> Tensor:
    model = Recorder(len(tokens), tokens.shape[1] - 1)
    objective.step_seed = seed
    objective.train()(model, tokens)
    return model.inputs.visible_prefix


def surprise(logits: Tensor, target: int) -> float:
    return math.log(sum(math.exp(x) for x in logits.tolist())) - logits[target].item()


def test_targets_that_the_prefix_shows_do_not_count() -> None:
    tokens = torch.tensor([[3, 1, 4, 1, 5], [5, 9, 2, 6, 5], [5, 3, 5, 8, 9]])
    model = Recorder(3, 4)
    # Three visible tokens show the first two targets; one, or none, shows none.
    loss = PrefixNextToken(SHAPE).train()(model, tokens, inputs=Inputs(visible_prefix=torch.tensor([3, 1, 0])))
    counted = [(0, 2), (0, 3), *((1, t) for t in range(4)), *((2, t) for t in range(4))]
    each = [surprise(model.logits[b, t], int(tokens[b, t + 1])) for b, t in counted]
    assert loss.count == len(each) == 10
    assert loss.total.item() == pytest.approx(sum(each), rel=1e-12)
    assert [tuple(place) for place in model.inputs.scored.nonzero().tolist()] == counted
    tokens[0, 3] = -100
    scored = torch.ones(3, 4, dtype=torch.bool).index_fill(1, torch.tensor([3]), False)
    loss = PrefixNextToken(SHAPE)(model, tokens, scored, Inputs(visible_prefix=torch.tensor([4, 4, 1])))
    assert loss.count == 3


def test_all_lengths_are_equally_likely() -> None:
    rows, n = 6000, 6
    tokens = torch.randint(0, VOCAB, (rows, n + 1), generator=torch.Generator().manual_seed(0))
    for seed in (None, 9):
        torch.manual_seed(0)
        counts = draw(PrefixNextToken(SHAPE), tokens, seed).bincount()
        assert len(counts) == n + 1 and counts[0] == 0
        # A chi-squared of 5 degrees of freedom is below 20 with probability 0.999.
        assert float(((counts[1:] - rows / n) ** 2).sum() / (rows / n)) < 25
    some = draw(PrefixNextToken(SHAPE, min_prefix=0.3, max_prefix=0.5), tokens, 1)
    assert set(some.tolist()) == {2, 3}
    assert set(draw(PrefixNextToken(SHAPE, max_prefix=0.0), tokens, 1).tolist()) == {1}


def test_a_draw_depends_on_the_row_and_the_step_alone() -> None:
    tokens = torch.randint(0, VOCAB, (8, 31))
    together = draw(PrefixNextToken(SHAPE), tokens, 5)
    alone = torch.cat([draw(PrefixNextToken(SHAPE), row[None], 5) for row in tokens])
    assert torch.equal(alone, together)
    assert not torch.equal(draw(PrefixNextToken(SHAPE), tokens, 6), together)


def test_no_target_that_counts_is_seen() -> None:
    """By gradient: the loss of each target depends on the prefix and the tokens up to it, and on nothing else."""
    model, tokens = randomise(lambda: decoder(depth=1)), torch.randint(0, VOCAB, (1, 8))
    embedded: list[Tensor] = []
    model.token_embedding.register_forward_hook(lambda *call: embedded.append(call[-1].requires_grad_()) or call[-1])
    objective = PrefixNextToken(SHAPE).train()
    documents = torch.tensor([[0, 0, 0, 0, 1, 1, 1]])
    for prefix, given, counts in ((4, None, [3, 4, 5, 6]), (2, documents, [1, 2, 3, 5, 6])):
        inputs = Inputs(visible_prefix=torch.tensor([prefix]), documents=given)
        for target in range(7):
            embedded.clear()
            only = torch.arange(7)[None] == target
            loss = objective(model, tokens, only, inputs)
            assert int(loss.count) == (target in counts)
            if target not in counts:
                continue
            (gradient,) = torch.autograd.grad(loss.total if loss.total.requires_grad else loss.mean, embedded[0])
            seen = (gradient[0].abs().amax(-1) > 0).nonzero()[:, 0].tolist()
            start, end = (0, 7) if given is None else (0, 4) if target < 4 else (4, 7)
            expected = [at for at in range(start, end) if at <= target or at - start < prefix]
            assert seen == expected, (prefix, target)
            assert target + 1 not in seen or target + 1 == end


@pytest.mark.parametrize("kind", [SegmentRecurrence, MemoryTokens])
def test_no_target_that_counts_is_seen_across_segments(kind: type) -> None:
    model = randomise(lambda: decoder(depth=2, segments=partial(kind, length=3, memory=2)))
    embedded: list[Tensor] = []
    model.token_embedding.register_forward_hook(lambda *call: embedded.append(call[-1].requires_grad_()) or call[-1])
    inputs = Inputs(visible_prefix=torch.tensor([5]))
    for target in range(4, 8):
        embedded.clear()
        only = torch.arange(8)[None] == target
        loss = PrefixNextToken(SHAPE).train()(model, torch.randint(0, VOCAB, (1, 9)), only, inputs)
        gradients = torch.autograd.grad(loss.mean, embedded, allow_unused=True, materialize_grads=True)
        seen = (torch.cat(gradients, dim=1)[0].abs().amax(-1) > 0).nonzero()[:, 0].tolist()
        assert loss.count == 1 and max(seen) == target


def test_the_context_of_an_evaluation_window_is_its_prefix() -> None:
    model, objective = randomise(lambda: decoder(depth=2)).eval(), PrefixNextToken(SHAPE).eval()
    text = torch.randint(0, VOCAB, (23,))
    total, plain, expected = 0.0, 0.0, 0.0
    windows = EvaluationWindows(text.numpy(), 6, 2)
    for number in range(len(windows)):
        tokens, scored = windows[number]
        loss = objective(model, tokens, scored)
        total += loss.total.item()
        # Independently: each text token from those before it in its window, of which the context is visible.
        start = 2 * number
        for at in range(start + (5 if number else 1), min(start + 7, len(text))):
            prefix = 5 if number else 1
            logits = model(tokens[:, :6], inputs=Inputs(visible_prefix=torch.tensor([prefix])))[0, at - start - 1]
            expected += surprise(logits, int(text[at]))
            plain += surprise(model(tokens[:, :6])[0, at - start - 1], int(text[at]))
    assert total == pytest.approx(expected, rel=1e-10)
    assert total != pytest.approx(plain, rel=1e-6)
    recorder = Recorder(1, 6)
    objective(recorder, tokens)
    assert recorder.inputs is None


def test_the_prefix_of_documents_is_drawn_for_the_longest() -> None:
    documents = torch.tensor([0] * 12 + [1] * 4 + [2] * 16).expand(400, 32)
    tokens = torch.randint(0, VOCAB, (400, 33))
    # The last document is padding.
    scored = (documents < 2).index_fill(1, torch.tensor([15]), False)
    for options, lengths in (({}, range(1, 13)), ({"min_prefix": 0.25, "max_prefix": 0.5}, range(3, 7))):
        for seed in (None, 4):
            model, objective = Recorder(400, 32), PrefixNextToken(SHAPE, **options).train()
            objective.step_seed = seed
            objective(model, tokens, scored, Inputs(documents=documents))
            drawn = model.inputs.visible_prefix
            assert sorted(set(drawn.tolist())) == [*lengths]
            # Of 12 tokens of the first document and 3 of the second.
            counts = (13 - drawn) + (4 - drawn).clamp(min=0)
            assert torch.equal(model.inputs.scored.sum(dim=1), counts)


def test_an_evaluation_of_documents_is_plain_causal() -> None:
    """The bits of a document must not depend on others in its row."""
    model = Recorder(2, 6)
    scored = torch.tensor([[False, False, False, True, True, True], [False, False, False, False, True, False]])
    documents = torch.tensor([[0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1]])
    loss = PrefixNextToken(SHAPE).eval()(
        model, torch.zeros(2, 7, dtype=torch.long), scored, Inputs(documents=documents)
    )
    assert model.inputs.visible_prefix is None and loss.count == 4


def test_soft_tokens_belong_to_the_prefix() -> None:
    model = Recorder(1, 3)
    inputs = Inputs(prefix=torch.zeros(1, 5, 8, dtype=torch.float64))
    objective = PrefixNextToken(SHAPE, min_prefix=1.0).train()
    assert objective(model, torch.zeros(1, 4, dtype=torch.long), inputs=inputs).count == 1
    assert model.inputs.visible_prefix.tolist() == [8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_prefix": -0.1}, "PrefixNextToken has min_prefix -0.1, which must be from 0 to 1"),
        ({"max_prefix": 1.1}, "PrefixNextToken has max_prefix 1.1, which must be from 0 to 1"),
        (
            {"min_prefix": 0.6, "max_prefix": 0.5},
            "objective: PrefixNextToken has min_prefix 0.6, which is above max_prefix 0.5; swap them",
        ),
    ],
)
def test_refuses_invalid_fractions(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrefixNextToken(SHAPE, **options)


def test_a_part_that_looks_back_only_is_refused_by_name() -> None:
    model = Decoder(VOCAB, dim=8, depth=1, attention=partial(DeltaNet, heads=2))
    with pytest.raises(ValueError, match=r"DeltaNet looks back only, .*, which objective: PrefixNextToken sets, "):
        PrefixNextToken(SHAPE).train()(model, torch.zeros(1, 4, dtype=torch.long))


@pytest.fixture
def completer() -> TextCompleter:
    torch.manual_seed(1)
    made = Decoder(259, dim=8, depth=2, attention=partial(Attention, heads=2)).double().eval()
    torch.nn.init.normal_(made.head.to_logits.weight, std=2.0)
    return TextCompleter(made, SpecialBytes(), torch.device("cpu"), visible_prompts=True)


def continue_by_hand(model: Decoder, prompt: list[int], steps: int) -> list[int]:
    """Take the most likely token, without a cache; the prompt is visible."""
    ids = list(prompt)
    for _ in range(steps):
        inputs = Inputs(visible_prefix=torch.tensor([len(prompt)]))
        logits = model(torch.tensor([ids]), inputs=inputs)[0, -1]
        ids.append(int(logits.index_fill(0, torch.tensor([0, 1]), -torch.inf).argmax()))
    return ids[len(prompt) :]


@torch.no_grad()
def test_a_prompt_is_visible_in_generation(completer: TextCompleter) -> None:
    options = GenerationOptions(temperature=0.0, max_new_tokens=6)
    texts = ["the quick brown fox", "a", "lazy dog"]
    session = completer.open_session(options)
    requests = [completer.build_request(text, session.options) for text in texts]
    expected = [continue_by_hand(completer.model, [1, *SpecialBytes().encode(text)], 6) for text in texts]
    assert [each[0].tokens for each in session.generate(requests)] == expected
    unseen = TextCompleter(completer.model, completer.tokenizer, completer.device)
    session = unseen.open_session(options)
    plain = [each[0].tokens for each in session.generate([unseen.build_request(t, session.options) for t in texts])]
    assert plain != expected
    rows = torch.zeros(3, 20, dtype=torch.long)
    lengths = torch.tensor([len(request.prompt) for request in requests])
    for row, request in enumerate(requests):
        rows[row, : lengths[row]] = request.prompt
    assert completer.decode(rows, lengths, options).tolist() == expected
    assert completer.decode(rows[:1], None, options).tolist() == expected[:1]
    inputs = Inputs(visible_prefix=lengths)
    assert measure_loss(completer.model, rows[:1], inputs) == measure_loss(completer.model, rows[:1])
    assert (
        generate(completer.model, rows[:1], 6, temperature=0, inputs=Inputs(visible_prefix=lengths[:1])).shape[1] == 6
    )


@torch.no_grad()
def test_a_conversation_sees_all_of_its_text(completer: TextCompleter) -> None:
    talk, ids = Conversation(completer, GenerationOptions(temperature=0.0, max_new_tokens=4)), [1]
    for said in ("hello", " there", " you"):
        list(talk.reply(said))
        ids += SpecialBytes().encode(said)
        more = continue_by_hand(completer.model, ids, 4)
        ids += [token for token in more if token != 2]
    assert talk._ids == ids


def test_a_model_trained_with_prefixes_generates_with_them() -> None:
    config = {"decoder": {"dim": 8, "depth": 1, "attention": {"heads": 2}}, "objective": "PrefixNextToken"}
    model = LanguageModel.from_config(config).eval()
    assert model.text_generator.visible_prompts
    assert not LanguageModel.from_config(config | {"objective": "NextToken"}).text_generator.visible_prompts
    prompt = torch.randint(0, 256, (1, 9))
    made = model.generate(prompt, max_new_tokens=3, temperature=0)
    expected = generate(model.decoder, prompt, 3, temperature=0, inputs=Inputs(visible_prefix=torch.tensor([9])))
    assert torch.equal(made, expected)
