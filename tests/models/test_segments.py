"""Segments: what each remembers of those before, with and without a cache, and what is refused."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from catalogue import CONTEXT, DIM, VOCAB, attention, context_options, decoder, randomise
from torch import Tensor

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.memories import Memories
from lightning_xt.core.trace import Trace
from lightning_xt.generation.engine import generate, run_requests
from lightning_xt.generation.methods.beam_search import BeamSearch
from lightning_xt.generation.requests import Request, SamplingParams
from lightning_xt.models.decoder import Decoder
from lightning_xt.nn.embeddings.learned_positions import LearnedPositions
from lightning_xt.nn.feedforward.deep_embed import DeepEmbed
from lightning_xt.nn.feedforward.mixture_of_experts import MixtureOfExperts
from lightning_xt.nn.positions.forgetting import Forgetting
from lightning_xt.nn.residuals.hyper_connection import HyperConnection
from lightning_xt.nn.segments.enhanced_recurrence import EnhancedRecurrence
from lightning_xt.nn.segments.memory_tokens import MemoryTokens
from lightning_xt.nn.segments.segment_recurrence import SegmentRecurrence
from lightning_xt.nn.shifts.token_shift import TokenShift
from lightning_xt.nn.value_mods.value_embedding import ValueEmbedding
from lightning_xt.nn.value_mods.value_from_input import ValueFromInput

KINDS = pytest.mark.parametrize("kind", [SegmentRecurrence, EnhancedRecurrence, MemoryTokens])


def build(kind, length=4, memory=3, dropout=0.0, **options) -> Decoder:
    return randomise(lambda: decoder(segments=partial(kind, length=length, memory=memory, dropout=dropout), **options))


def draw(rows: int, n: int) -> Tensor:
    return torch.randint(0, VOCAB, (rows, n), generator=torch.Generator().manual_seed(5))


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10)


def read(model: Decoder, tokens: Tensor, memories: Memories | None = None, **inputs) -> tuple[Tensor, Memories]:
    logits, trace = model(tokens, inputs=Inputs(memories=memories, **inputs), trace=Trace())
    return logits, trace.memories


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"attention": attention(position=Forgetting)},
        {"residual": HyperConnection},
        {"attention": attention(value_mods=[ValueEmbedding, ValueFromInput])},
    ],
    ids=["plain", "forgetting", "hyper_connection", "value_mods"],
)
@torch.no_grad()
def test_memories_are_a_mask_that_ends_a_number_of_tokens_before_the_segment(options):
    """An independent form of Transformer-XL, whose layers see the vectors of earlier tokens as these were then."""
    model = build(SegmentRecurrence, **options)
    plain = randomise(lambda: decoder(**options))
    plain.load_state_dict(model.state_dict())
    tokens, index = draw(2, 15), torch.arange(15)
    seen = index >= (index // 4 * 4 - 3)[:, None]
    close(model(tokens), plain(tokens, inputs=Inputs(mask=seen.expand(2, -1, -1))))


@torch.no_grad()
def test_enhanced_memories_are_the_output_of_the_layer():
    model = build(EnhancedRecurrence, depth=1)
    tokens, stack = draw(1, 6), model.stack
    layer, feedforward = stack.sublayers.values()
    _, memories = read(model, tokens[:, :4])
    states = model(tokens[:, :4], trace=Trace())[1].states
    close(stack.output_norm(memories.vectors[0], Inputs()), states[:, 1:])

    x, at = model.token_embedding(tokens[:, 4:]), torch.arange(5)[None]
    whole = layer.placement.normalize_input(torch.cat((memories.vectors[0], x), dim=1), Inputs())
    q, k, v = layer.branch.projection.project(whole)
    q, k = layer.branch.position.rotate_queries(q, at), layer.branch.position.rotate_keys(k, at)
    scores = (q @ k.mT * 6**-0.5).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    x = x + layer.branch.to_out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))[:, 3:]
    x = x + feedforward.branch.feedforward(feedforward.placement.normalize_input(x, Inputs()))
    close(model.head(stack.output_norm(x, Inputs())), model(tokens)[:, 4:])


@torch.no_grad()
def test_memory_tokens_are_written_after_a_segment_and_stand_before_the_next():
    model = build(MemoryTokens)
    tokens, initial = draw(2, 8), model.segments.initial.expand(2, -1, -1)
    x = model.token_embedding(tokens)
    plain = randomise(lambda: decoder())
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if "segments" not in name})

    def run(vectors: Tensor) -> Tensor:
        """Hidden states of soft tokens: all but the last, which `compute_states` does not return."""
        blank = torch.zeros(2, 1, dtype=torch.long)
        return plain(blank, inputs=Inputs(prefix=vectors), trace=Trace(keeps_hidden=True))[1].hidden

    def finish(vectors: Tensor) -> Tensor:
        feedforward = plain.stack.sublayers["1_feedforward"]
        last = run(vectors)[-1][:, :-1]
        last = last + feedforward.branch.feedforward(feedforward.placement.normalize_input(last, Inputs()))
        return plain.stack.output_norm(last, Inputs())

    first = finish(torch.cat((x[:, :4], initial), dim=1))
    written = first[:, 4:]
    second = finish(torch.cat((written, x[:, 4:], written), dim=1))[:, 3:7]
    close(model(tokens), plain.head(torch.cat((first[:, :4], second), dim=1)))


@KINDS
@torch.no_grad()
def test_a_row_equals_its_segments_one_after_the_other(kind):
    model, tokens, memories, found = build(kind, shift=TokenShift), draw(2, 13), None, []
    for start in range(0, 13, 4):
        logits, memories = read(model, tokens[:, start : start + 4], memories)
        found.append(logits)
    close(torch.cat(found, dim=1), model(tokens))


@KINDS
@torch.no_grad()
def test_a_cache_begins_with_memories(kind):
    model, tokens = build(kind), draw(2, 13)
    _, memories = read(model, tokens[:, :8])
    cache = model.new_cache(2, 5)
    found = [model(tokens[:, 8:10], inputs=Inputs(memories=memories), cache=cache)]
    found += [model(tokens[:, [at]], cache=cache) for at in range(10, 13)]
    close(torch.cat(found, dim=1), model(tokens)[:, 8:])


@KINDS
@torch.no_grad()
def test_completions_over_segments_equal_greedy_choices_from_whole_rows(kind):
    """Prompts of different lengths, which end their segments at different steps, alone and with beams."""
    model, prompts, lengths = build(kind), draw(3, 7), [7, 2, 4]
    found = generate(model, prompts, 9, lengths=torch.tensor(lengths), temperature=0.0)
    for row, length in enumerate(lengths):
        tokens = prompts[row : row + 1, :length]
        for _ in range(9):
            tokens = torch.cat((tokens, model(tokens)[:, -1:].argmax(dim=-1)), dim=1)
        assert found[row].tolist() == tokens[0, length:].tolist()
    beams = generate(model, prompts, 9, lengths=torch.tensor(lengths), temperature=0.0, method=BeamSearch(beams=1))
    assert beams.tolist() == found.tolist()


@KINDS
def test_gradients_flow_between_the_segments_of_a_row_until_memories_are_detached(kind):
    model, tokens = build(kind), draw(1, 8)
    embedded: list[Tensor] = []
    model.token_embedding.register_forward_hook(lambda module, args, out: embedded.append(out))
    (first,) = torch.autograd.grad(model(tokens)[:, 5].sum(), embedded[:1])
    assert first[:, 1:].abs().max() > 0
    embedded.clear()
    _, memories = read(model, tokens[:, :4])
    logits, _ = read(model, tokens[:, 4:], memories.detach())
    (first,) = torch.autograd.grad(logits[:, 1].sum(), embedded[:1], allow_unused=True)
    assert first is None


@KINDS
@torch.no_grad()
def test_a_row_that_ends_a_whole_segment_earlier_leaves_the_memories_it_leaves_alone(kind):
    model, tokens, more = build(kind), draw(2, 10), draw(2, 3)
    trace = model(tokens, lengths=torch.tensor([10, 3]), trace=Trace())[1]
    together, _ = read(model, more, trace.memories)
    for row, length in enumerate((10, 3)):
        mine = slice(row, row + 1)
        close(together[mine], read(model, more[mine], read(model, tokens[mine, :length])[1])[0])


@KINDS
def test_every_parameter_is_part_of_the_graph_in_each_batch(kind):
    """Distributed training waits for a gradient of each."""
    model, tokens = build(kind), draw(2, 4)
    _, memories = read(model, tokens)
    model.zero_grad()
    logits, _ = read(model, tokens, memories.detach())
    logits.sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@KINDS
@torch.no_grad()
def test_vectors_that_are_kept_for_the_caller_are_those_of_the_tokens(kind):
    model, tokens = build(kind), draw(2, 10)
    hidden = model(tokens, trace=Trace(keeps_hidden=True))[1].hidden
    assert {each.shape for each in hidden} == {(2, 10, DIM)}
    with pytest.raises(ValueError, match=r"^a Trace that keeps hidden states or maps is not filled while segments are"):
        model(tokens, cache=model.new_cache(2, 10), trace=Trace(keeps_maps=True))


@torch.no_grad()
def test_auxiliary_losses_of_segments_are_weighted_by_their_counted_tokens():
    torch.manual_seed(0)
    options = {"feedforward": partial(MixtureOfExperts, num_experts=4), "depth": 1}
    model, tokens = (
        decoder(segments=partial(SegmentRecurrence, length=4), **options).train(),
        torch.randint(VOCAB, (2, 8)),
    )
    first, second = torch.ones(2, 2, 8, dtype=torch.bool)
    first[:, 1:], second[:, :4] = False, False
    _, trace = model(tokens[:, :4], trace=Trace(), inputs=Inputs(scored=first[:, :4]))
    _, last = model(tokens[:, 4:], trace=Trace(), inputs=Inputs(memories=trace.memories))
    both = model(tokens, trace=Trace(), inputs=Inputs(scored=first | second))[1].sum_losses()
    alone = model(tokens, trace=Trace(), inputs=Inputs(scored=second))[1].sum_losses()
    for name, loss in last.sum_losses().items():
        torch.testing.assert_close(alone[name], loss)
        # One token of four counts in the first segment, and four in the second.
        torch.testing.assert_close(both[name], (trace.sum_losses()[name] + 4 * loss) / 5)


def test_a_visible_prefix_of_documents_over_segments_is_refused_and_dropout_needs_no_mask_in_a_cache():
    model, tokens = build(SegmentRecurrence, dropout=0.5), draw(1, 8)
    inputs = Inputs(documents=torch.zeros(1, 8, dtype=torch.long), visible_prefix=torch.tensor([2]))
    with pytest.raises(
        ValueError, match=r"^Inputs\(visible_prefix=...\) counts from the start of each document, Inputs"
    ):
        model(tokens, inputs=inputs)
    model(tokens[:, :4], inputs=Inputs(documents=inputs.documents[:, :4], visible_prefix=inputs.visible_prefix))
    model.train()(tokens, cache=model.new_cache(1, 8))


@KINDS
@torch.no_grad()
def test_shorter_rows_and_rows_that_begin_again_read_as_if_alone(kind):
    model, tokens = build(kind), draw(3, 8)
    trace = model(tokens[:, :4], lengths=torch.tensor([4, 2, 4]), trace=Trace())[1]
    memories = trace.memories.reset(torch.tensor([False, False, True]))
    logits, _ = read(model, tokens[:, 4:], memories)
    _, alone = read(model, tokens[1:2, :2])
    close(logits[:1], model(tokens[:1])[:, 4:])
    close(logits[1:2], read(model, tokens[1:2, 4:], alone)[0])
    close(logits[2:], model(tokens[2:, 4:]))


@KINDS
@torch.no_grad()
def test_a_document_depends_on_no_other_whichever_segment_it_is_in(kind):
    model, tokens = build(kind), draw(1, 12)
    for second in (3, 4, 6, 9):
        documents = (torch.arange(12) >= second).long()[None]
        before = model(tokens, inputs=Inputs(documents=documents))
        for changed in (1, second - 1):
            other = torch.where(torch.arange(12) == changed, (tokens + 1) % VOCAB, tokens)
            close(model(other, inputs=Inputs(documents=documents))[:, second:], before[:, second:])


@pytest.mark.parametrize("kind", [SegmentRecurrence, EnhancedRecurrence])
@torch.no_grad()
def test_a_document_does_not_see_another_in_the_memories(kind):
    model, tokens = build(kind), draw(1, 8)
    documents = torch.tensor([[5, 5, 7, 7, 7, 7, 9, 9]])
    whole = model(tokens, inputs=Inputs(documents=documents))
    _, memories = read(model, tokens[:, :4], documents=documents[:, :4])
    assert memories.documents.tolist() == [[-2, 0, 0]]
    # Document 0 is the one that the memories end in.
    rest, _ = read(model, tokens[:, 4:], memories, documents=documents[:, 4:] - 7)
    close(rest, whole[:, 4:])
    first, memories = read(model, tokens[:, 2:4])
    close(whole[:, 2:6], torch.cat((first, read(model, tokens[:, 4:6], memories)[0]), dim=1))
    close(whole[:, 6:], model(tokens[:, 6:]))


def test_dropout_hides_memories_in_training_only():
    model, tokens = build(SegmentRecurrence, dropout=0.5), draw(2, 8)
    close(model(tokens), model(tokens))
    model.train()
    torch.manual_seed(1)
    one, other = model(tokens), model(tokens)
    close(one[:, :4], other[:, :4])
    assert (one[:, 4:] - other[:, 4:]).abs().max() > 1e-3
    # What is remembered does not depend on what was hidden.
    assert read(model, tokens)[1].valid is None


@KINDS
@torch.no_grad()
def test_memories_and_caches_keep_their_size_over_100_segments(kind):
    model, tokens = build(kind, depth=1), draw(1, 400)
    cache, sizes = model.new_cache(1, 400), set()
    for start in range(0, 400, 4):
        model(tokens[:, start : start + 4], cache=cache)
        buffers = [
            buffer for each in (cache.tokens, cache.stream) for call in each._calls for buffer in call._buffers.values()
        ]
        kept = 0 if cache.memories is None else sum(each.numel() for each in cache.memories.vectors)
        sizes.add((sum(buffer.numel() for buffer in buffers), kept))
    assert len(sizes - {min(sizes)}) <= 1, sizes
    memories = read(model, tokens)[1]
    assert memories.num_tokens == 3


@torch.no_grad()
def test_memories_go_into_checkpoints_and_come_back(tmp_path):
    model, tokens = build(SegmentRecurrence), draw(2, 8)
    _, memories = read(model, tokens[:, :4], documents=torch.tensor([[0, 0, 1, 1]] * 2))
    torch.save(memories.to_state(), tmp_path / "state")
    again = Memories.from_state(torch.load(tmp_path / "state", weights_only=True))
    for name in ("embedded", "tokens", "documents"):
        assert torch.equal(getattr(again, name), getattr(memories, name)), name
    close(read(model, tokens[:, 4:], again)[0], read(model, tokens[:, 4:], memories)[0])


def test_memories_of_another_model_or_of_other_rows_are_refused():
    model, tokens = build(SegmentRecurrence), draw(2, 4)
    memories = read(model, tokens)[1]
    with pytest.raises(
        ValueError, match=r"^Inputs\(memories=...\) has 1 row\(s\), but 2 were given; give the memories"
    ):
        read(model, tokens, memories.select([0]))
    for other in (build(SegmentRecurrence, depth=1), build(SegmentRecurrence, dim=DIM + 2), build(MemoryTokens)):
        with pytest.raises(ValueError, match=r"^Inputs\(memories=...\) has vectors of .* give memories of this model$"):
            read(model, tokens, read(other, tokens)[1])
    four, cache = Inputs(memories=memories.select([0, 1, 0, 1])), model.new_cache(2, 4)
    with pytest.raises(ValueError, match=r"^Inputs\(memories=...\) has 4 row\(s\), but 2 were given"):
        model(tokens, inputs=four, cache=cache)
    with pytest.raises(ValueError, match=r"has vectors of 2 calls, 13 wide, of 3 tokens, .* of up to 2 tokens"):
        read(build(SegmentRecurrence, memory=2), tokens, memories)
    with pytest.raises(ValueError, match=r"^Inputs\(memories=...\) needs a decoder with segments, .* set segments, or"):
        decoder()(tokens, inputs=Inputs(memories=memories.select([0, 1])))


def test_caches_of_another_kind_and_inputs_of_one_segment_are_refused():
    model, tokens = build(SegmentRecurrence), draw(1, 8)
    for one, other in ((model, decoder().double()), (decoder().double(), model)):
        with pytest.raises(ValueError, match=r"^the cache belongs to another model; use one that new_cache of this"):
            one(tokens, cache=other.new_cache(1, 8))
    for name, value in {
        "mask": torch.ones(1, 8, 8, dtype=torch.bool),
        "bias": torch.zeros(1, 1, 8, 8, dtype=torch.float64),
        "positions": torch.arange(8)[None],
        "prefix": torch.zeros(1, 1, DIM, dtype=torch.float64),
    }.items():
        with pytest.raises(ValueError, match=rf"^Inputs\({name}=...\) belongs to one segment, but .* segments.length$"):
            model(tokens, inputs=Inputs(**{name: value}))
    with pytest.raises(ValueError, match=r"^Inputs\(prefix=...\) belongs to one segment"):
        # With the soft token, one more than a segment has.
        model(tokens[:, :4], inputs=Inputs(prefix=torch.zeros(1, 1, DIM, dtype=torch.float64)))
    memories = read(model, tokens)[1]
    with torch.no_grad():
        cache = model.new_cache(1, 8)
        with pytest.raises(ValueError, match=r"^Inputs\(prefix=...\) cannot be decoded with segments"):
            model(tokens, inputs=Inputs(prefix=torch.zeros(1, 1, DIM, dtype=torch.float64)), cache=cache)
        with pytest.raises(ValueError, match=r"^Inputs\(condition=...\) has one vector a token; give one vector a row"):
            model(tokens, inputs=Inputs(condition=torch.zeros(1, 8, 3)), cache=cache)
        gaps = replace(memories, valid=torch.tensor([[True, False, True]]))
        with pytest.raises(ValueError, match=r"^Inputs\(memories=...\) has gaps of unseen tokens"):
            model(tokens, inputs=Inputs(memories=gaps), cache=cache)
        model(tokens[:, :2], cache=cache)
        with pytest.raises(ValueError, match=r"^Inputs\(memories=...\) belongs to the first forward of a cache"):
            model(tokens[:, 2:], inputs=Inputs(memories=memories), cache=cache)
        with pytest.raises(ValueError, match=r"^the cache has 1 row\(s\), but 2 were given"):
            model(draw(2, 1), cache=cache)
        with pytest.raises(ValueError, match=r"^the cache holds 8 tokens a row, 2 are taken and 7 more were given"):
            model(draw(1, 7), cache=cache)


def test_segments_that_do_not_fit_are_refused_at_build():
    for option in ("length", "memory"):
        with pytest.raises(ValueError, match=f"segments: SegmentRecurrence.*{option}.* 0"):
            decoder(segments=partial(SegmentRecurrence, **{option: 0}))
    with pytest.raises(ValueError, match=r"segments: MemoryTokens.*dropout.* 1"):
        decoder(segments=partial(MemoryTokens, dropout=1.0))
    with pytest.raises(
        ValueError, match=r"^segments: SegmentRecurrence has segments of 8 tokens, but LearnedPositions has"
    ):
        decoder(segments=partial(SegmentRecurrence, length=8), embeddings=[partial(LearnedPositions, max_length=7)])
    for part in ({"feedforward": DeepEmbed}, {"attention": attention(value_mods=[ValueEmbedding])}):
        with pytest.raises(
            ValueError, match=r"^segments: MemoryTokens adds tokens without ids, but .* reads ids; choose"
        ):
            decoder(segments=MemoryTokens, **part)


def test_positions_begin_again_with_each_segment():
    model = build(SegmentRecurrence, embeddings=[partial(LearnedPositions, max_length=4)])
    assert model.max_length is None
    assert model(draw(1, 13)).shape == (1, 13, VOCAB)


@torch.no_grad()
def test_rows_with_an_input_and_rows_without_are_not_decoded_together():
    model, tokens = build(SegmentRecurrence), draw(2, 3)
    cache, other = model.new_cache(2, 8), model.new_cache(1, 8)
    model(tokens, cache=cache)
    model(tokens[:1], inputs=Inputs(visible_prefix=torch.tensor([1])), cache=other)
    cache.overwrite(torch.tensor([1]), other)
    with pytest.raises(
        ValueError, match=r"^rows that are decoded together need the same inputs, but only some have vis"
    ):
        model(tokens[:, :1], cache=cache)


@KINDS
@torch.no_grad()
def test_rows_at_different_places_are_decoded_for_many_segments(kind):
    """Also with rows that are replaced, as continuous batching does."""
    model, tokens, lengths = build(kind), draw(2, 40), [3, 1]
    cache = model.new_cache(2, 40)
    expected = model(tokens)
    found = model(tokens[:, :3], lengths=torch.tensor(lengths), cache=cache, last_only=True)
    for step in range(34):
        at = [length + step for length in lengths]
        for row, t in enumerate(at):
            close(found[row, -1], expected[row, t - 1])
        found = model(torch.stack([tokens[row, t] for row, t in enumerate(at)])[:, None], cache=cache)


@KINDS
@pytest.mark.parametrize("options", [{}, context_options()], ids=["prefix", "context"])
@torch.no_grad()
def test_rows_that_have_finished_keep_what_the_others_need(kind, options, monkeypatch):
    """Devices other than a CPU leave finished rows in the batch."""
    model, tokens = build(kind, **options), draw(9, 5)
    contexts = torch.randn(9, 3, CONTEXT, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    requests = [
        Request(
            prompt=tokens[row, : 1 + row % 5],
            max_new_tokens=3 + 5 * (row % 4),
            inputs=Inputs(context=contexts[row : row + 1])
            if options
            else Inputs(visible_prefix=torch.tensor([1 + row % 5])),
        )
        for row in range(9)
    ]
    alone = run_requests(model, requests, SamplingParams(batch=1))
    monkeypatch.setattr("lightning_xt.generation.batching.scheduler.is_on_host", lambda device: False)
    together = run_requests(model, requests, SamplingParams(batch=4))
    assert [each[0].tokens for each in together] == [each[0].tokens for each in alone]
