"""Order of sublayers, and how many there are."""

from dataclasses import dataclass
from typing import Any

from lightning_xt.commands.x_transformers.given_options import LIMITS, Given, make_class
from lightning_xt.system.messages import UserError

LETTERS = {"a": "attention", "c": "cross-attention", "f": "a feedforward"}


@dataclass(frozen=True)
class Order:
    """Sublayers of a stack.

    Args:
        layout: the layout as a config spells it.
        depth: the option `depth`.
        letters: the sublayers that have weights, in the order of x-transformers.
        block: sublayers of one layer.
    """

    layout: Any
    depth: int
    letters: str
    block: str

    @property
    def regular(self) -> bool:
        """True if all layers have the same sublayers."""
        return self.letters == self.block * self.depth


def choose_order(layers: Given, *, crossing: bool, only_cross: bool = False) -> Order:
    """Return the order of sublayers.

    Args:
        layers: options of the stack.
        crossing: True if there is cross-attention.
        only_cross: True if there is no other attention, whatever the options say.
    """
    block = "cf" if crossing and (only_cross or layers.get("only_cross")) else "acf" if crossing else "af"
    macaron, only_attn = layers.get("macaron"), layers.get("only_attn")
    if not crossing and layers.has("only_cross"):
        layers.miss("only_cross", "there is no cross-attention, which cross_attend switches on")
    block = ("f" if macaron else "") + block
    block = block.replace("f", "") if only_attn else block
    custom = layers.get("custom_layers")
    if custom is not None:
        return _read_custom(layers, custom, block, crossing=crossing)
    depth = layers.get("depth")
    if depth is None:
        raise UserError(f"from-xt: {layers.owner} has no depth; give it, such as depth=6")
    if layers.has("par_ratio"):
        return _spread_attention(layers, depth, block)
    if layers.has("sandwich_coef"):
        return _make_sandwich(layers, depth, block)
    plain = Order(_choose_layout(layers, block, depth), depth, block * depth, block)
    if layers.get("weight_tie_layers"):
        looped = "Standard" if depth == 1 else make_class("Looped", loops=depth)
        if plain.layout != "Standard":
            layers.miss("weight_tie_layers", f"there is one layout, which is {_name(plain.layout)}")
            return plain
        return Order(looped, 1, block, block)
    return _repeat(layers, plain) if layers.has("layers_execute_order") else plain


def _choose_layout(layers: Given, block: str, depth: int) -> Any:
    if block == "cf":
        return make_class("CustomOrder", order="cf" * depth)
    if layers.get("only_attn"):
        if layers.get("macaron"):
            layers.differ("macaron", "there are no feedforwards", exact=True)
        return "AttentionOnly"
    return "Macaron" if layers.get("macaron") else "Standard"


def _read_custom(layers: Given, custom: tuple[Any, ...], block: str, *, crossing: bool) -> Order:
    order = "".join(str(each) for each in custom)
    if (
        not custom
        or any(not isinstance(each, str) or each not in LETTERS for each in custom)
        or ("c" in order and not crossing)
    ):
        words = ", ".join(f"{letter!r} ({word})" for letter, word in LETTERS.items())
        more = "" if crossing else "; 'c' needs cross_attend=True"
        raise UserError(f"from-xt: custom_layers is {order!r}, which must be a tuple of {words}{more}")
    for option in ("macaron", "par_ratio", "sandwich_coef", "layers_execute_order", "weight_tie_layers"):
        if layers.has(option):
            layers.miss(option, "custom_layers says the order")
    layers.get("depth")
    return _make_custom(order, block)


def _make_custom(order: str, block: str) -> Order:
    mixers = block.replace("f", "")
    if mixers and order == mixers * (len(order) // len(mixers)):
        return Order("AttentionOnly", len(order) // len(mixers), order, mixers)
    depth = max(map(order.count, LETTERS))
    return Order(make_class("CustomOrder", order=order), depth, order, block)


def _spread_attention(layers: Given, depth: int, block: str) -> Order:
    """Return the order of par_ratio as x-transformers computes it."""
    ratio, total, mixers = layers.get("par_ratio"), depth * len(block), block.replace("f", "")
    if not 1 < ratio <= total:
        raise UserError(f"from-xt: par_ratio is {ratio}, which must be from 2 to {total}, the number of sublayers")
    attentions, cut = total // ratio, total * 2 // 3
    width = (cut + cut // attentions) // attentions
    if len(mixers) > width:
        raise UserError(f"from-xt: par_ratio is {ratio}, which leaves no room for a feedforward; raise it")
    head = (mixers + "f" * (width - len(mixers))) * attentions
    layers.differ("par_ratio", "the order of x-transformers is written out; PAROrder is that of the paper", exact=True)
    return _remark_macaron(layers, _make_custom(head + "f" * (total - len(head)), block))


def _make_sandwich(layers: Given, depth: int, block: str) -> Order:
    coefficient = layers.get("sandwich_coef")
    if not 0 < coefficient <= depth:
        raise UserError(f"from-xt: sandwich_coef is {coefficient}, which must be from 1 to the depth ({depth})")
    order = "a" * coefficient + block * (depth - coefficient) + "f" * coefficient
    if layers.get("only_attn"):
        order = order.replace("f", "")
    if block == "af":
        return Order(make_class("SandwichOrder", coefficient=coefficient), depth, order, block)
    return _remark_macaron(layers, _make_custom(order, block))


def _remark_macaron(layers: Given, order: Order) -> Order:
    if layers.get("macaron"):
        layers.differ("macaron", "feedforwards are not halved in a custom order")
    return order


def _repeat(layers: Given, plain: Order) -> Order:
    """Return the layers in the order in which they are called, if it calls whole layers."""
    order, width = layers.get("layers_execute_order"), len(plain.block)
    if any(not isinstance(each, int) or isinstance(each, bool) for each in order) or len(order) > LIMITS["depth"]:
        raise UserError("from-xt: layers_execute_order must be a tuple of the numbers of sublayers, from 0")
    parts = [order[at : at + width] for at in range(0, len(order), width)]
    numbers = [part[0] // width for part in parts]
    whole = all(
        tuple(part) == tuple(range(n * width, n * width + width)) for part, n in zip(parts, numbers, strict=True)
    )
    if not whole or set(numbers) != set(range(plain.depth)) or plain.layout != "Standard":
        layers.miss("layers_execute_order", "LayerOrder calls whole layers, each at least once")
        return plain
    return Order(make_class("LayerOrder", order=numbers), plain.depth, plain.letters, plain.block)


def _name(layout: Any) -> str:
    return str(layout["class_path"] if isinstance(layout, dict) else layout)
