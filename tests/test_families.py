"""Laws of every variant of every family. New variants are found, not listed."""

import copy
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from catalogue import (
    ALL,
    BUILDS,
    CASES,
    CONDITION,
    CONTEXT,
    DIM,
    DIM_HEAD,
    HEADS,
    VECTORS,
    VOCAB,
    Build,
    attention_layers,
    carries_state,
    count_draws,
    crop,
    example,
    looks_back,
    randomise,
    recurrences,
    shared,
)
from sampled_laws import choose, sample
from torch import Tensor

from lightning_xt.core.cache import Cache
from lightning_xt.core.inputs import Inputs, ReadsInput
from lightning_xt.models.decoder import Decoder

CHECKS_SHAPES = pytest.mark.checks_shapes
SOME = sample("build", BUILDS)
LOOKING = "(position|normalizer|score_mods|attention)"
"""Slots of parts that may look back only."""


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10)


@ALL
def test_no_token_sees_the_future(build: Build) -> None:
    model = shared(build)
    tokens, inputs = example(2, 7)
    before = model(tokens, inputs=inputs)
    changed = tokens.clone()
    changed[:, 4] = (changed[:, 4] + 1) % VOCAB
    after = model(changed, inputs=inputs)
    close(after[:, :4], before[:, :4])
    assert (after[:, 4] - before[:, 4]).abs().max() > 1e-6, "a token does not even see itself"


@ALL
def test_no_gradient_comes_from_the_future(build: Build) -> None:
    model = randomise(build)
    tokens, inputs = example(2, 7)
    embedded: list[Tensor] = []
    model.token_embedding.register_forward_hook(lambda module, args, out: embedded.append(out))
    logits = model(tokens, inputs=inputs)
    (gradient,) = torch.autograd.grad(logits[:, 3].square().sum(), embedded)
    assert gradient[:, 4:].abs().max() == 0
    assert gradient[:, 3].abs().max() > 0


def decode(model: Decoder, cache: Cache, steps: list[int]) -> Tensor:
    """Return the logits of a row fed to a cache in pieces of the given sizes."""
    tokens, inputs = example(2, sum(steps))
    logits, start = [], 0
    for size in steps:
        piece = slice(start, start + size)
        logits.append(model(tokens[:, piece], inputs=crop(inputs, piece), cache=cache))
        start += size
    return torch.cat(logits, dim=1)


def check_decoding(build: Build, steps: list[int]) -> None:
    """Check decoding; with a slack of two, windows of three wrap around, and pieces of three overrun."""
    model = shared(build)
    tokens, inputs = example(2, 13)
    with torch.no_grad():
        close(decode(model, model.new_cache(2, 13, slack=2), steps), model(tokens, inputs=inputs))


@ALL
def test_decoding_with_a_cache_equals_one_forward(build: Build) -> None:
    check_decoding(build, [5, 1, 1, 2, 1, 3])


@SOME
@pytest.mark.parametrize("steps", [[1] * 13, [3, 7, 1, 1, 1]], ids=str)
def test_decoding_in_other_pieces_equals_one_forward(build: Build, steps: list[int]) -> None:
    check_decoding(build, steps)


@SOME
def test_decoding_with_a_static_cache_equals_one_forward(build: Build) -> None:
    model = shared(build)
    tokens, inputs = example(2, 13)
    with torch.no_grad():
        cache = model.new_cache(2, 13, slack=2, static=True)
        close(decode(model, cache, [5, 1, 1, 2, 1, 3]), model(tokens, inputs=inputs))


@SOME
def test_a_cache_with_a_window_decodes_as_a_model_with_it(build: Build) -> None:
    model = shared(build)
    tokens, inputs = example(2, 13)
    narrow = copy.deepcopy(model)
    for layer in attention_layers(narrow):
        if layer.shape.context_dim is None:
            layer.window = min(layer.window or 3, 3)
    if carries_state(model):
        with pytest.raises(ValueError, match=r"window is 3, but .*\w+ is a recurrence, .*; omit the window$"):
            model.new_cache(2, 13, window=3)
        return
    with torch.no_grad():
        expected = narrow(tokens, inputs=inputs)
        for static in (False, True):
            cache = model.new_cache(2, 13, slack=2, window=3, static=static)
            close(decode(model, cache, [5, 1, 1, 2, 1, 3]), expected)


@SOME
@CHECKS_SHAPES
def test_a_cache_takes_back_tokens_and_reorders_rows(build: Build) -> None:
    model = shared(build)
    tokens, inputs = example(2, 11)
    with torch.no_grad():
        cache = model.new_cache(2, 11, slack=2)
        model(tokens[:, :7], inputs=crop(inputs, slice(0, 7)), cache=cache)
        if carries_state(model):
            with pytest.raises(ValueError, match=r"cannot remove tokens: .*\w+ is a running state without a past"):
                cache.truncate(7)
        else:
            wrong = (tokens[:, 7:9] + 1) % VOCAB
            model(wrong, inputs=crop(inputs, slice(7, 9)), cache=cache)
            cache.truncate(7)
        flip = torch.tensor([1, 0])
        cache.select(flip)
        flipped, theirs = tokens[flip], crop(inputs, slice(None), flip)
        rest = [model(flipped[:, [t]], inputs=crop(theirs, slice(t, t + 1)), cache=cache) for t in range(7, 11)]
        close(torch.cat(rest, dim=1), model(tokens, inputs=inputs)[flip, 7:])


@ALL
@CHECKS_SHAPES
def test_a_padded_row_equals_the_same_row_alone(build: Build) -> None:
    model = shared(build)
    tokens, inputs = example(2, 7)
    with torch.no_grad():
        together = model(tokens, lengths=torch.tensor([7, 4]), inputs=inputs)
        for row, length in enumerate((7, 4)):
            mine = slice(row, row + 1)
            alone = model(tokens[mine, :length], inputs=crop(inputs, slice(0, length), mine))
            close(together[mine, :length], alone)


@SOME
@torch.no_grad()
def test_documents_of_one_row_equal_each_alone(build: Build) -> None:
    model, (tokens, inputs) = shared(build), example(2, 7)
    together = model(tokens, inputs=replace(inputs, documents=torch.tensor([[0] * 3 + [1] * 4, [0] * 5 + [1] * 2])))
    for row, start in enumerate((3, 5)):
        mine = slice(row, row + 1)
        for document in (slice(0, start), slice(start, 7)):
            close(together[mine, document], model(tokens[mine, document], inputs=crop(inputs, document, mine)))


@SOME
@torch.no_grad()
def test_a_hidden_token_changes_no_other(build: Build) -> None:
    model, (tokens, inputs) = shared(build), example(2, 7)
    hidden = torch.arange(7).expand(2, -1) == torch.tensor([[2], [4]])
    inputs = replace(inputs, hidden_tokens=hidden)
    before, after = (model(each, inputs=inputs) for each in (tokens, torch.where(hidden, (tokens + 1) % VOCAB, tokens)))
    close(after[~hidden], before[~hidden])


@SOME
@torch.no_grad()
def test_own_positions_and_an_own_mask_that_say_nothing_new_change_nothing(build: Build) -> None:
    model, (tokens, inputs) = shared(build), example(2, 7)
    expected = model(tokens, inputs=inputs)
    close(model(tokens, inputs=replace(inputs, positions=torch.arange(7).expand(2, -1))), expected)
    masked = replace(inputs, mask=torch.ones(2, 7, 7, dtype=torch.bool))
    if recurrences(model):
        with pytest.raises(ValueError, match=r"has no scores of pairs of tokens, which Inputs\(mask=...\) is about"):
            model(tokens, inputs=masked)
        return
    close(model(tokens, inputs=masked), expected)


@SOME
@torch.no_grad()
def test_cases_p2_a_visible_prefix_is_seen_and_decoded_or_refused(build: Build) -> None:
    model, (tokens, inputs) = shared(build), example(2, 7)
    inputs = replace(inputs, visible_prefix=torch.tensor([4, 2]))
    if looks_back(model):
        with pytest.raises(ValueError, match=rf"^{LOOKING}: \w+ looks back only, .* or omit visible_prefix$"):
            model(tokens, inputs=inputs)
        return
    expected = model(tokens, inputs=inputs)
    later = torch.arange(7) >= torch.tensor([[4], [2]])
    after = model(torch.where(later, (tokens + 1) % VOCAB, tokens), inputs=inputs)
    close(after[~later], expected[~later])
    second = torch.arange(7).expand(2, -1) == 1
    after = model(torch.where(second, (tokens + 1) % VOCAB, tokens), inputs=inputs)
    assert ((after - expected)[:, 0].abs().amax(dim=-1) > 1e-6).all(), "the first token does not see the second"
    cache = model.new_cache(2, 7)
    pieces = [model(tokens[:, :5], inputs=crop(inputs, slice(0, 5)), cache=cache)]
    pieces += [model(tokens[:, [t]], inputs=crop(inputs, slice(t, t + 1)), cache=cache) for t in (5, 6)]
    close(torch.cat(pieces, dim=1), expected)


@ALL
def test_rows_of_different_lengths_decode_as_if_alone(build: Build) -> None:
    check_rows(build, slack=2)


@SOME
def test_rows_of_different_lengths_decode_with_room_as_if_alone(build: Build) -> None:
    check_rows(build, slack=64)


def check_rows(build: Build, slack: int) -> None:
    model = shared(build)
    tokens, inputs = example(2, 11)
    lengths = [7, 2]
    with torch.no_grad():
        cache = model.new_cache(2, 11, slack=slack)
        first = model(
            tokens[:, :7],
            lengths=torch.tensor(lengths),
            inputs=crop(inputs, slice(0, 7)),
            cache=cache,
            last_only=True,
        )
        logits = [first]
        for step in range(4):
            at = [length + step for length in lengths]
            token = torch.stack([tokens[row, t] for row, t in enumerate(at)])[:, None]
            types = torch.stack([inputs.types[row, t] for row, t in enumerate(at)])[:, None]
            logits.append(model(token, inputs=replace(inputs, types=types), cache=cache))
        for row, length in enumerate(lengths):
            mine = slice(row, row + 1)
            alone = model(tokens[mine, : length + 4], inputs=crop(inputs, slice(0, length + 4), mine))
            close(torch.cat(logits, dim=1)[mine], alone[:, length - 1 :])


@SOME
def test_rows_that_are_placed_and_rows_that_stay_decode_as_if_alone(build: Build) -> None:
    """Placed rows decode as if alone: z, prefilled separately, replaces y, and then moves into the place of x."""
    model = shared(build)
    tokens, inputs = example(3, 11)
    inputs.context_mask[2, 1:] = False
    x, z = slice(0, 1), slice(2, 3)

    def step(row: slice, at: int) -> tuple[Tensor, Tensor]:
        return tokens[row, at : at + 1], inputs.types[row, at : at + 1]

    with torch.no_grad():
        cache, other = model.new_cache(2, 11, slack=2), model.new_cache(1, 3, slack=2)
        first = crop(inputs, slice(0, 5), slice(0, 2))
        model(tokens[:2, :5], lengths=torch.tensor([5, 4]), inputs=first, cache=cache)
        model(tokens[z, :3], inputs=crop(inputs, slice(0, 3), z), cache=other)
        cache.overwrite(torch.tensor([1]), other)
        cache.set_lengths([5, 3])
        both = [torch.cat(pair) for pair in zip(step(x, 5), step(z, 3), strict=True)]
        beside = replace(crop(inputs, slice(0), torch.tensor([0, 2])), types=both[1])
        together = model(both[0], inputs=beside, cache=cache)
        cache.retire([(1, 0)], 1)
        cache.set_lengths([4])
        rest = [model(step(z, t)[0], inputs=crop(inputs, slice(t, t + 1), z), cache=cache) for t in range(4, 11)]
        close(together[:1, 0], model(tokens[x, :6], inputs=crop(inputs, slice(0, 6), x))[:, 5])
        alone = model(tokens[z], inputs=crop(inputs, slice(None), z))
        close(torch.cat((together[1:], *rest), dim=1), alone[:, 3:])


@ALL
@CHECKS_SHAPES
def test_every_parameter_learns(build: Build) -> None:
    model = randomise(build).train()
    # More than one segment.
    tokens, inputs = example(2, 13)
    for _ in range(count_draws(model)):
        model(tokens, inputs=inputs).square().sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-12]
    assert idle == []


@ALL
@CHECKS_SHAPES
def test_the_fused_backend_agrees_with_the_explicit(build: Build) -> None:
    model = randomise(build)
    tokens, inputs = example(2, 7)
    layers = attention_layers(model)
    if not layers:
        assert recurrences(model), "neither attention nor a recurrence"
        return
    claimed = frozenset.intersection(*(layer.supported_backends for layer in layers))
    assert "explicit" in claimed
    with torch.no_grad():
        for layer in layers:
            layer.backend = "explicit"
        expected = model(tokens, inputs=inputs)
        if "fused" in claimed:
            for layer in layers:
                layer.backend = "fused"
            close(model(tokens, inputs=inputs), expected)


@ALL
def test_bf16_stays_close_to_fp32(build: Build) -> None:
    model = shared(build, torch.float32)
    tokens, inputs = example(2, 7, torch.float32)
    with torch.no_grad():
        expected = model(tokens, inputs=inputs)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(tokens, inputs=inputs)
        tokens, inputs = example(2, 7, torch.bfloat16)
        low = copy.deepcopy(model).bfloat16()(tokens, inputs=inputs)
    for actual in (mixed, low):
        error = (actual.float() - expected).norm() / expected.norm()
        assert error < 0.06, f"relative error {error:.3f}"


@ALL
def test_round_trips(build: Build) -> None:
    model = shared(build)
    tokens, inputs = example(2, 7)
    with torch.no_grad():
        expected = model(tokens, inputs=inputs)
        fresh = build().double().eval()
        fresh.load_state_dict(model.state_dict())
        for again in (fresh, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            close(again(tokens, inputs=inputs), expected)
    assert [id(p) for p in copy.deepcopy(model).parameters()] != [id(p) for p in model.parameters()]
    assert len(list(copy.deepcopy(model).parameters())) == len(list(model.parameters()))


def run_traced(*arguments: str) -> str:
    """Run laws in another process: the run-time checks of shapes, which the tests switch on, cannot be traced."""
    command = [sys.executable, Path(__file__).with_name("traced_laws.py"), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.parametrize("part", ["sample", *(pytest.param(part, marks=pytest.mark.slow) for part in "012")])
def test_compiles_without_a_break_and_flex_agrees(part: str) -> None:
    said = run_traced("part", part)
    compiled, flex, of = map(int, re.search(r"(\d+) compiled, (\d+) of (\d+) agree with flex", said).groups())
    assert flex == of > len(BUILDS) // 8
    assert compiled > (len(BUILDS) - len(CASES)) // 5


def test_rows_of_other_lengths_share_programs_and_flex_takes_what_a_caller_gives() -> None:
    run_traced("shared")


@pytest.mark.slow
def test_block_masks_and_windows_are_compiled_for_all_lengths() -> None:
    run_traced("block masks")


@pytest.mark.slow
@ALL
def test_compiles_with_inductor(build: Build) -> None:
    """Inductor's results agree, forward and backward, in a process without run-time checks of shapes."""
    run_traced(next(name for name, known in BUILDS.items() if known is build))


def test_a_sample_has_each_family_and_differs_by_law() -> None:
    families = {name.partition("=")[0] for name in BUILDS if "=" in name}
    samples = [choose(law, BUILDS) for law in ("one", "two", "three", "four", "five", "six")]
    for each in samples:
        assert families == {name.partition("=")[0] for name in each if "=" in name}
        assert len(BUILDS) // 5 < len(each) < len(BUILDS) // 3
    assert len(set().union(*samples)) > len(BUILDS) // 2


def test_sizes_are_distinct() -> None:
    assert len({VOCAB, DIM, DIM_HEAD, HEADS, CONTEXT, VECTORS, CONDITION, 2, 7}) == 9


def test_cases_p7_a_part_says_which_input_it_needs() -> None:
    """Every variant that cannot compute from tokens alone declares why, so that a model can refuse it before data."""
    for name, build in BUILDS.items():
        model, (tokens, inputs) = build(), example(2, 4, torch.float32)
        declared = {part.needed_input for part in model.modules() if isinstance(part, ReadsInput)} - {None}
        try:
            model(tokens)
            found = set()
        except ValueError as error:
            found = set(re.findall(r"needs Inputs\((\w+)=", str(error)))
        assert (name, declared) == (name, found)
        needed = {"context": inputs.context} if model.context is not None else {}
        model(tokens, inputs=Inputs(**needed, **{each: getattr(inputs, each) for each in declared - {"context"}}))
