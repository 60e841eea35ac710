"""Plain values that travel: inputs, sizes, the trace."""

import re
from dataclasses import FrozenInstanceError

import jaxtyping
import pytest
import torch

from lightning_xt.core.inputs import Inputs
from lightning_xt.core.shapes import AttentionShape, LayerShape
from lightning_xt.core.trace import Trace
from lightning_xt.nn.activations.relu_squared import ReLUSquared


class Reader:
    """Part that reads an input."""


@pytest.mark.parametrize("name", ["condition", "context", "types", "prefix"])
def test_a_missing_input_is_named_with_its_reader(name: str) -> None:
    message = f"Reader needs Inputs({name}=...), but this forward has no {name}"
    with pytest.raises(ValueError, match=re.escape(message)):
        Inputs().require(name, Reader())


def test_a_given_input_is_handed_on() -> None:
    types = torch.zeros(1, 3, dtype=torch.long)
    assert Inputs(types=types).require("types", Reader()) is types


@pytest.mark.parametrize("value", [Inputs(), LayerShape(dim=3), Trace()], ids=["inputs", "shape", "trace"])
def test_values_do_not_change(value: object) -> None:
    name = next(iter(vars(value)))
    with pytest.raises(FrozenInstanceError):
        setattr(value, name, None)


def test_a_trace_grows_by_replacement() -> None:
    first, second = torch.zeros(1, 2, 3, 4), torch.ones(1, 2, 3, 4)
    empty = Trace()
    one = empty.add_values(first)
    two = one.add_values(second).add_context_values(first)
    assert (len(empty.values), len(one.values), len(two.values)) == (0, 1, 2)
    assert two.values[0] is first and two.values[1] is second and two.context_values == (first,)


def test_an_attention_shape_is_a_layer_shape_with_heads() -> None:
    shape = AttentionShape(dim=13, layer=1, depth=3, heads=6, kv_heads=2, dim_head=5)
    assert isinstance(shape, LayerShape)
    assert (shape.dim, shape.layer, shape.depth, shape.causal, shape.context_dim) == (13, 1, 3, True, None)


@pytest.mark.parametrize("name", ["heads", "kv_heads", "dim_head"])
def test_refuses_sizes_below_one(name: str) -> None:
    with pytest.raises(ValueError, match=f"^attention has {name} 0, which must be at least 1$"):
        AttentionShape(**{"dim": 13, "heads": 6, "kv_heads": 2, "dim_head": 5, name: 0})


@pytest.mark.parametrize(("heads", "kv_heads", "better"), [(7, 2, 1), (6, 4, 3), (6, 12, 6), (12, 5, 4)])
def test_offers_a_number_of_groups_that_divides_the_heads(heads: int, kv_heads: int, better: int) -> None:
    with pytest.raises(
        ValueError, match=re.escape(f"heads ({heads}) must be a multiple of kv_heads ({kv_heads})")
    ) as e:
        AttentionShape(dim=13, heads=heads, kv_heads=kv_heads, dim_head=5)
    assert str(e.value).endswith(f"try kv_heads {better}")
    AttentionShape(dim=13, heads=heads, kv_heads=better, dim_head=5)


def test_a_wrong_type_is_found_in_this_folder() -> None:
    """Shapes are checked in every test of this folder; see conftest.py for the others."""
    whole_numbers = torch.ones(3, dtype=torch.long)
    with pytest.raises(jaxtyping.TypeCheckError):
        ReLUSquared()(whole_numbers)
