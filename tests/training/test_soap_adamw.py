import copy
import itertools
import pickle

import pytest
import torch
from matrix_steps import Calls, Stacked, group, take_step, through_a_file, weights
from torch import nn
from torch.optim import AdamW

from lightning_xt.models.decoder import Decoder
from lightning_xt.training.optim.eigenbases import find_eigenbases, improve_eigenbases
from lightning_xt.training.optim.parameter_groups import parameter_groups
from lightning_xt.training.optim.soap_adamw import SOAPAdamW


def matrices(*shapes, dtype=torch.float64):
    torch.manual_seed(1)
    return [nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in shapes]


def give_gradients(parameters, step, scale=1.0):
    generator = torch.Generator().manual_seed(step)
    for p in parameters:
        # Larger in the first rows and columns, so that eigenvalues differ.
        spread = torch.outer(*(0.8 ** torch.arange(n) for n in p.shape)) if p.dim() == 2 else 1.0
        p.grad = (scale * spread * torch.randn(p.shape, generator=generator, dtype=torch.float64)).to(p.dtype)


def orthonormalize(matrix):
    """Multiply Householder's reflections, as many as the rank."""
    n = len(matrix)
    rest, q = matrix.clone(), torch.eye(n, dtype=matrix.dtype)
    least = None
    for j in range(n - 1):
        x = rest[j:, j].clone()
        least = 1e-13 * x.norm() if least is None else least
        if x.norm() <= least:
            break
        x[0] += x.norm() if x[0] >= 0 else -x.norm()
        reflection = torch.eye(n, dtype=matrix.dtype)
        reflection[j:, j:] -= 2 * torch.outer(x, x) / (x @ x)
        rest, q = reflection @ rest, q @ reflection
    return q


def compute_by_hand(p, gradients, *, lr, betas, shampoo_beta, eps, decay, every):
    """Compute SOAP as the paper states it: a matrix at a time, the mean gradient outside of the eigenbases."""
    p = p.detach().clone()
    mean, square = torch.zeros_like(p), torch.zeros_like(p)
    left, right = torch.zeros(len(p), len(p)).double(), torch.zeros(p.shape[1], p.shape[1]).double()
    for count, g in enumerate(gradients):
        if count:
            rotated = bases[0].T @ g @ bases[1]
            mean = betas[0] * mean + (1 - betas[0]) * g
            square = betas[1] * square + (1 - betas[1]) * rotated * rotated
            first = bases[0].T @ mean @ bases[1] / (1 - betas[0] ** count)
            second = square / (1 - betas[1] ** count)
            p = p - lr * decay * p
            p = p - lr * bases[0] @ (first / (second.sqrt() + eps)) @ bases[1].T
        left = shampoo_beta * left + (1 - shampoo_beta) * g @ g.T
        right = shampoo_beta * right + (1 - shampoo_beta) * g.T @ g
        if count == 0:
            found = [torch.linalg.eigh(each) for each in (left, right)]
            bases = [orthonormalize((vectors * values).flip(1)) for values, vectors in found]
        elif count % every == 0:
            for side, covariance in enumerate((left, right)):
                values = torch.tensor([v @ covariance @ v for v in bases[side].T])
                order = torch.tensor(sorted(range(len(values)), key=lambda i: -values[i]))
                bases[side] = orthonormalize(covariance @ bases[side][:, order])
                square = square[order] if side == 0 else square[:, order]
    return p


@pytest.mark.parametrize("shape", [(7, 7), (5, 9), (9, 5)], ids=["square", "wide", "tall"])
@pytest.mark.parametrize("every", [10, 3])
def test_steps_by_hand(shape, every):
    options = {"lr": 0.1, "shampoo_beta": 0.8, "eps": 1e-6}
    # A batch of two.
    mine = matrices(shape, shape)
    start = [p.detach().clone() for p in mine]
    optimizer = SOAPAdamW([group(mine)], soap_betas=(0.9, 0.7), weight_decay=0.2, precondition_every=every, **options)
    gradients = []
    for step in range(25):
        give_gradients(mine, step)
        gradients.append([p.grad.clone() for p in mine])
        optimizer.step()
    for number, p in enumerate(mine):
        own = [each[number] for each in gradients]
        expected = compute_by_hand(start[number], own, betas=(0.9, 0.7), decay=0.2, every=every, **options)
        assert (p - start[number]).norm() > 1
        torch.testing.assert_close(p.detach(), expected, rtol=0, atol=1e-8)


def test_maps_in_one_weight_are_preconditioned_apart():
    together = Stacked().double()
    apart = [nn.Parameter(part.clone()) for part in together.to_qkv.weight.detach().split((6, 3, 3))]
    options = {"lr": 0.1, "precondition_every": 4}
    one, other = SOAPAdamW(parameter_groups(together), **options), SOAPAdamW([group(apart)], **options)
    for step in range(25):
        give_gradients([together.to_qkv.weight], step)
        for part, gradient in zip(apart, together.to_qkv.weight.grad.split((6, 3, 3)), strict=True):
            part.grad = gradient.clone()
        one.step()
        other.step()
    torch.testing.assert_close(together.to_qkv.weight, torch.cat(list(apart)), rtol=0, atol=1e-9)


def test_without_eigenbases_it_is_adamw():
    mine, theirs = matrices((5, 7), (7, 5), (1, 6)), matrices((5, 7), (7, 5), (1, 6))
    options = {"lr": 0.02, "eps": 1e-6, "weight_decay": 0.1}
    optimizers = (
        SOAPAdamW([group(mine)], soap_betas=(0.8, 0.9), max_dim=1, **options),
        AdamW(theirs, betas=(0.8, 0.9), **options),
    )
    for step in range(25):
        for parameters, optimizer in zip((mine, theirs), optimizers, strict=True):
            give_gradients(parameters, step)
            optimizer.step()
    for p, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(p, other, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(("shape", "left"), [((4, 9), "row"), ((9, 4), "column")])
def test_a_long_side_keeps_the_identity(shape, left):
    (p,) = matrices(shape)
    optimizer = SOAPAdamW([group([p])], max_dim=4)
    for step in range(2):
        give_gradients([p], step)
        optimizer.step()
    state = optimizer.state[p]
    assert {*state} == {"step", "calls", "exp_avg", "exp_avg_sq", f"{left}_covariance_0", f"{left}_basis_0"}
    # Adam's first step has the size of the learning rate in the bases, so that no row, or column, is longer.
    q = state[f"{left}_basis_0"]
    assert torch.allclose(q.T @ q, torch.eye(4).double(), rtol=0, atol=1e-12)


def find_loss(make, lrs):
    """Return the lowest loss of a quadratic after 60 steps, over the learning rates."""
    torch.manual_seed(2)
    left, right = (torch.linalg.qr(torch.randn(n, n).double()).Q * 10 ** -torch.linspace(0, 2, n) for n in (8, 6))
    goal = torch.randn(8, 6).double()
    losses = []
    for lr in lrs:
        p = nn.Parameter(torch.zeros(8, 6, dtype=torch.float64))
        optimizer = make(p, lr)
        for step in range(60):
            optimizer.zero_grad()
            # It falls to zero.
            for each in optimizer.param_groups:
                each["lr"] = lr * (1 - step / 60)
            loss = (left.T @ (p - goal) @ right).square().sum()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    # The best rate is not at an end.
    assert losses.index(min(losses)) not in (0, len(lrs) - 1)
    return min(losses)


def test_a_quadratic_that_is_not_aligned_with_the_axes():
    lrs = [0.03, 0.1, 0.3, 1.0, 3.0]
    adamw = find_loss(lambda p, lr: AdamW([p], lr=lr, betas=(0.95, 0.95), weight_decay=0.0), lrs)
    soap = find_loss(lambda p, lr: SOAPAdamW([group([p])], lr=lr, weight_decay=0.0), lrs)
    assert soap < adamw / 2


def test_eigenbases_are_sorted_and_improve():
    torch.manual_seed(0)
    vectors = torch.linalg.qr(torch.randn(3, 6, 6).double()).Q
    gram = vectors * 0.5 ** torch.arange(6) @ vectors.mT
    found = find_eigenbases(gram)
    torch.testing.assert_close(
        found.mT @ vectors, torch.diag_embed((found * vectors).sum(1).round()), atol=1e-9, rtol=0
    )
    bases, errors = torch.eye(6).double().flip(-1).expand(3, 6, 6), []
    for _ in range(20):
        bases, order = improve_eigenbases(gram, bases)
        core = bases.mT @ gram @ bases
        errors.append(float((core - torch.diag_embed(core.diagonal(dim1=1, dim2=2))).norm()))
        torch.testing.assert_close(bases.mT @ bases, torch.eye(6).double().expand(3, 6, 6), atol=1e-12, rtol=0)
    assert errors[-1] < 1e-3 * errors[0]
    assert torch.equal(order, torch.arange(6).expand(3, 6))


def test_rounding_errors_do_not_decide_about_a_null_space():
    torch.manual_seed(0)
    gram = torch.randn(2, 9, 4).double()
    gram = gram @ gram.mT
    noise = 1e-16 * torch.randn_like(gram)
    torch.testing.assert_close(find_eigenbases(gram), find_eigenbases(gram + noise + noise.mT), atol=1e-12, rtol=0)
    bases = torch.linalg.qr(torch.randn(2, 9, 9).double()).Q
    one, other = (improve_eigenbases(each, bases)[0] for each in (gram, gram + noise + noise.mT))
    torch.testing.assert_close(one, other, atol=1e-12, rtol=0)
    torch.testing.assert_close(one.mT @ one, torch.eye(9).double().expand(2, 9, 9), atol=1e-12, rtol=0)
    assert torch.equal(find_eigenbases(torch.zeros(1, 3, 3)), torch.eye(3)[None])


def test_gradients_of_zeros_move_nothing_and_begin_nothing():
    (p,) = matrices((3, 5))
    before = p.detach().clone()
    optimizer = SOAPAdamW([group([p])], weight_decay=0.0, precondition_every=2)
    p.grad = torch.zeros_like(p)
    optimizer.step()
    # Eigenbases of zeros would be the identity until the next ones.
    assert not optimizer.state
    give_gradients([p], 0)
    optimizer.step()
    assert torch.equal(p, before)
    for step in range(4):
        p.grad = torch.zeros_like(p)
        optimizer.step()
        assert torch.equal(p, before), step
    give_gradients([p], 0)
    optimizer.step()
    assert p.isfinite().all() and not torch.equal(p, before)


def test_parameters_without_a_gradient_stay():
    still, moved = matrices((3, 5), (3, 5))
    norm = nn.Parameter(torch.ones(5))
    optimizer = SOAPAdamW([group([still, moved]), group([norm], "other")], precondition_every=2)
    before = still.detach().clone()
    for step in range(3):
        give_gradients([moved], step)
        optimizer.step()
    assert torch.equal(still, before)
    assert torch.equal(norm, torch.ones(5))
    assert set(optimizer.state) == {moved}
    # It begins later, and its bases are new at other steps.
    late = copy.deepcopy(still)
    alone = SOAPAdamW([group([late])], precondition_every=2)
    for step in range(3, 8):
        give_gradients([still, moved], step)
        give_gradients([late], step)
        optimizer.step()
        alone.step()
    torch.testing.assert_close(still, late, rtol=0, atol=1e-12)
    moved.grad = still.grad = None
    optimizer.step()


def decoder(dtype=torch.float32):
    torch.manual_seed(3)
    model = Decoder(11, dim=16, depth=2).to(dtype)
    # The head begins at zero, which stops every gradient.
    nn.init.normal_(model.head.to_logits.weight, std=0.1)
    return model


def copy_state(optimizer):
    return copy.deepcopy(optimizer.state_dict()["state"])


def differ(one, other):
    """List the entries of two states that differ."""
    pairs = ((name, value, other[number][name]) for number in one for name, value in one[number].items())
    return {name for name, *both in pairs if not torch.equal(*map(torch.as_tensor, both))}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_a_saved_state_resumes_bit_for_bit_between_two_eigenbases(dtype):
    model = decoder(dtype)
    optimizer = SOAPAdamW(parameter_groups(model), precondition_every=3)
    for number in range(6):
        take_step(model, optimizer, number)
    saved = through_a_file({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    kinds = {value.dtype for value in saved["optimizer"]["state"][0].values() if torch.is_tensor(value)}
    assert kinds == {torch.float32, torch.promote_types(dtype, torch.float32)}
    again = decoder(dtype)
    other = SOAPAdamW(parameter_groups(again), lr=1.0)
    again.load_state_dict(saved["model"])
    other.load_state_dict(saved["optimizer"])
    for number in range(6, 12):
        take_step(model, optimizer, number)
        take_step(again, other, number)
    assert torch.equal(weights(model), weights(again))
    assert not differ(optimizer.state_dict()["state"], other.state_dict()["state"])
    assert optimizer.state_dict()["state"][0]["calls"] == 11


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_steps_by_itself(duplicate):
    model = decoder()
    optimizer = SOAPAdamW(parameter_groups(model), precondition_every=2)
    for number in range(4):
        take_step(model, optimizer, number)
    again, other = duplicate((model, optimizer))
    before = weights(model)
    take_step(again, other, 4)
    assert torch.equal(weights(model), before)
    take_step(model, optimizer, 4)
    assert torch.equal(weights(model), weights(again))
    assert not torch.equal(weights(model), before)


def skip_step(model, optimizer):
    for p in model.parameters():
        p.grad = torch.full_like(p, torch.nan)
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    optimizer.zero_grad()
    optimizer.found_inf = torch.tensor(0.0)


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_skipped_step_changes_nothing(steps):
    model, twin = decoder(), decoder()
    optimizer, other = (SOAPAdamW(parameter_groups(each), precondition_every=2) for each in (model, twin))
    optimizer.found_inf = torch.tensor(0.0)
    for number in range(steps):
        take_step(model, optimizer, number)
        take_step(twin, other, number)
    # A step that is not skipped is the same with and without the number.
    torch.testing.assert_close(weights(model), weights(twin), rtol=1e-5, atol=1e-6)
    before, state = weights(model), copy_state(optimizer)
    skip_step(model, optimizer)
    assert torch.equal(weights(model), before)
    # The second call with eigenbases, here the skipped one after two steps, would make new ones.
    assert differ(state, copy_state(optimizer)) <= {"calls"}
    take_step(model, optimizer, steps)
    take_step(twin, other, steps)
    assert weights(model).isfinite().all()
    if steps < 2:
        torch.testing.assert_close(weights(model), weights(twin), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("found_inf", [None, 0.0])
def test_a_step_reads_no_value_and_multiplies_by_shape(found_inf):
    model = decoder()
    optimizer = SOAPAdamW(parameter_groups(model), precondition_every=2)
    optimizer.found_inf = None if found_inf is None else torch.tensor(found_inf)
    for number in range(5):
        give_gradients(model.parameters(), number)
        with Calls() as calls:
            optimizer.step()
    # Reading a value would make the host wait for the device.
    assert not {"_local_scalar_dense", "item", "is_nonzero", "equal"} & {*calls.names}
    # Queries, keys and values, (48, 16) together, are three maps of (16, 16).
    shapes = {tuple(p.shape) for p in optimizer.param_groups[0]["params"]}
    assert shapes == {(16, 16), (48, 16), (64, 16), (16, 64)}
    assert calls.names.count("geqrf") == calls.names.count("orgqr") + calls.names.count("linalg_householder_product")
    assert calls.names.count("geqrf") == 3 * 2
    assert calls.names.count("bmm") == 3 * (2 + 2 + 2 + 2 * 3)


def test_steps_are_the_same_in_any_batch():
    together, apart = matrices((5, 7), (5, 7), (7, 5)), matrices((5, 7), (5, 7), (7, 5))
    one = SOAPAdamW([group(together)], precondition_every=2)
    others = [SOAPAdamW([group([p])], precondition_every=2) for p in apart]
    for number in range(6):
        give_gradients(together, number)
        give_gradients(apart, number)
        for optimizer in (one, *others):
            optimizer.step()
    for p, other in zip(together, apart, strict=True):
        torch.testing.assert_close(p, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"lr": -1.0}, "lr -1.0, which must be at least 0"),
        ({"soap_betas": (1.0, 0.9)}, "the first of soap_betas 1.0, which must be at least 0 and below 1"),
        ({"soap_betas": (0.9, -0.1)}, "the second of soap_betas -0.1, which must be at least 0 and below 1"),
        ({"shampoo_beta": 1.0}, "shampoo_beta 1.0, which must be at least 0 and below 1"),
        ({"eps": -1.0}, "eps -1.0, which must be at least 0"),
        ({"weight_decay": -1.0}, "weight_decay -1.0, which"),
        ({"precondition_every": 0}, "precondition_every 0, which must be at least 1"),
        ({"max_dim": 0}, "max_dim 0, which must be at least 1"),
        ({"adamw_lr": -1.0}, "adamw_lr -1.0, which"),
        ({"embedding_lr": -1.0}, "embedding_lr -1.0, which"),
        ({"head_lr": -1.0}, "head_lr -1.0, which"),
        ({"adamw_weight_decay": -1.0}, "adamw_weight_decay -1.0, which"),
        ({"adamw_eps": -1.0}, "adamw_eps -1.0, which"),
        ({"adamw_betas": (0.9, 1.0)}, "the second of adamw_betas 1.0, which must be at least 0 and below 1"),
    ],
)
def test_options_out_of_range(options, rule):
    with pytest.raises(ValueError, match=f"optimizer: SOAPAdamW has {rule}"):
        SOAPAdamW([group(matrices((3, 5)))], **options)


def test_parameters_it_cannot_take_are_named():
    with pytest.raises(ValueError, match=r"2 of the parameters .* are not, such as p1 \(5,\); give those the role"):
        SOAPAdamW([group([*matrices((3, 5)), nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(2, 3, 4))])])
    with pytest.raises(ValueError, match=r"SOAPAdamW .* parameters of the role None, .* parameter_groups\(model\)"):
        SOAPAdamW(nn.Linear(3, 5).parameters())


@pytest.mark.parametrize("value", [torch.nan, 1e200])
def test_a_first_gradient_that_is_not_finite(value):
    mine = matrices((3, 5), (5, 3))
    optimizer = SOAPAdamW([group(mine)])
    give_gradients(mine, 0)
    mine[1].grad[0, 0] = value
    with pytest.raises(
        ValueError, match="SOAPAdamW finds its first eigenbases from gradients that are not finite; skip"
    ):
        optimizer.step()
    assert not optimizer.state


def test_betas_of_zero():
    mine = matrices((3, 5))
    optimizer = SOAPAdamW([group(mine)], soap_betas=(0.0, 0.0), precondition_every=1)
    before = mine[0].detach().clone()
    for number in range(3):
        give_gradients(mine, number)
        optimizer.step()
    assert mine[0].isfinite().all() and not torch.equal(mine[0], before)


def test_numbers_of_steps_count_from_the_first_gradient():
    first, second = matrices((3, 5), (3, 5))
    optimizer = SOAPAdamW([group([first, second])])
    for number, given in itertools.product(range(3), ([first], [first, second])):
        give_gradients(given, number)
        optimizer.step()
        first.grad = second.grad = None
    assert [optimizer.state[p]["step"].item() for p in (first, second)] == [5.0, 2.0]
