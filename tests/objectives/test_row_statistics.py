"""The loss of large logits in blocks of rows, against the loss at once."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from lightning_xt import LanguageModel
from lightning_xt.objectives import cross_entropy as losses
from lightning_xt.objectives import row_statistics
from lightning_xt.objectives.cross_entropy import IGNORED, compute_logit_z_loss, cross_entropy

ROWS, TOKENS, VOCAB = 3, 7, 11


@pytest.fixture
def blocks(monkeypatch):
    """Return a function that turns blocks of rows on or off, also for small logits."""

    def turn(on, rows=4):
        monkeypatch.setattr(row_statistics, "LARGE", {"cpu": 0 if on else 1 << 60})
        # The last block has fewer rows.
        monkeypatch.setattr(row_statistics, "BLOCK", {"cpu": rows * VOCAB + 1})

    return turn


def make(dtype=torch.float64, unscored=True):
    torch.manual_seed(0)
    logits = 5 * torch.randn(ROWS, TOKENS, VOCAB, dtype=torch.float64)
    targets = torch.randint(VOCAB, (ROWS, TOKENS))
    targets[0, 2] = targets[2, 6] = IGNORED
    scored = torch.rand(ROWS, TOKENS) < 0.7 if unscored else None
    return logits.to(dtype).requires_grad_(), targets, scored


@pytest.mark.parametrize("rows", [1, 4, 100])
@pytest.mark.parametrize("unused", [None, [], [0, 5]])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_blocks_have_the_loss_and_the_gradient_of_the_whole(blocks, smoothing, unused, rows):
    unused = None if unused is None else torch.tensor(unused, dtype=torch.long)
    found = []
    for on in (False, True):
        blocks(on, rows)
        logits, targets, scored = make()
        loss = cross_entropy(logits, targets, scored, smoothing, unused)
        (3 * loss.mean).backward()
        found.append((loss.mean, loss.total, loss.count, logits.grad))
    for whole, cut in zip(*found, strict=True):
        torch.testing.assert_close(cut, whole, rtol=1e-13, atol=1e-14)
    assert found[1][3].abs().sum() > 0


def test_the_z_loss_too(blocks):
    found = []
    for on in (False, True):
        blocks(on)
        logits, targets, _ = make()
        value = compute_logit_z_loss(logits, targets)
        value.backward()
        found.append((value, logits.grad))
    torch.testing.assert_close(found[1], found[0], rtol=1e-13, atol=1e-14)


def test_by_hand(blocks):
    blocks(True)
    logits = torch.tensor([[[0.0, 0.0], [3.0, 3.0]]], dtype=torch.float64, requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([[1, IGNORED]]))
    loss.mean.backward()
    assert float(loss.mean.detach()) == pytest.approx(0.6931471805599453)
    assert logits.grad.tolist() == [[[0.5, -0.5], [0.0, 0.0]]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_logits_are_read_in_float32(blocks, dtype):
    found = []
    for on in (False, True):
        blocks(on)
        logits, targets, scored = make(dtype)
        with torch.autocast("cpu", torch.bfloat16):
            loss = cross_entropy(logits, targets, scored, 0.1)
            loss.mean.backward()
        assert loss.mean.dtype == torch.float32
        assert logits.grad.dtype == dtype
        found.append((loss.mean, logits.grad))
    # The gradient is computed in float32 and rounded once, so that at most the last bit differs.
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-6, atol=0)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=2 * torch.finfo(dtype).eps, atol=1e-7)


@pytest.mark.parametrize(
    "head",
    [
        "UntiedHead",
        {"class_path": "TiedHead", "init_args": {"bias": True}},
        "SoftCapHead",
        {"class_path": "SigmoidCapHead", "init_args": {"head": "TiedHead"}},
        "MixtureOfSoftmaxes",
    ],
    ids=["untied", "tied", "soft cap", "sigmoid cap", "mixture"],
)
def test_a_model_has_the_gradients_of_the_whole(blocks, head):
    objective = {"class_path": "NextToken", "init_args": {"z_loss": 0.1, "label_smoothing": 0.1}}
    options = {"dim": 8, "depth": 1, "attention": {"heads": 2}, "head": head}
    torch.manual_seed(0)
    model = LanguageModel.from_config({"decoder": options, "objective": objective}).double()
    tokens = torch.randint(256, (2, 8))
    found = []
    for on in (False, True):
        blocks(on)
        model.zero_grad()
        model(tokens).backward()
        found.append({name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None})
    assert set(found[0]) == {name for name, _ in model.named_parameters()}
    for name, whole in found[0].items():
        torch.testing.assert_close(
            found[1][name], whole, rtol=1e-11, atol=1e-13, msg=lambda text, name=name: name + text
        )


def most_memory(logits, targets):
    """Return the most bytes that a loss and its gradient allocate."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        cross_entropy(logits, targets).mean.backward()
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def test_large_logits_need_only_their_gradient(monkeypatch):
    logits = torch.randn(1, 512, 32768).bfloat16().requires_grad_()
    targets = torch.randint(32768, (1, 512))
    assert row_statistics.is_large(logits)
    gradient = logits.numel() * 2
    assert gradient <= most_memory(logits, targets) < 1.3 * gradient
    logits.grad = None
    monkeypatch.setattr(losses, "is_large", lambda logits: False)
    # The log softmax and its gradient, in float32, and the gradient in bfloat16.
    assert most_memory(logits, targets) > 3 * gradient


def test_an_unknown_target_is_refused_as_in_small_logits(blocks):
    logits = torch.randn(1, 2, VOCAB)
    for on in (False, True):
        blocks(on)
        with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
            cross_entropy(logits, torch.tensor([[1, VOCAB]]))
