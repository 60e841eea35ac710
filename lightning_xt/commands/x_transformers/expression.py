"""Reading of an architecture as a user of x-transformers writes it; the text is parsed, never executed."""

import ast
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from lightning_xt.commands.x_transformers.reference_options import HELPERS, read_texts
from lightning_xt.system.messages import UserError, explain_unknown

LAYERS = ("Decoder", "Encoder", "PrefixDecoder", "CrossAttender", "AttentionLayers")
"""Classes of x-transformers that stand at `attn_layers`."""
TRAINERS = ("AutoregressiveWrapper", "XLAutoregressiveWrapper")
"""Classes of x-transformers around a model, which train it."""
WRAPPERS = ("TransformerWrapper", "XTransformer", *TRAINERS)
"""Classes of x-transformers that stand for a whole model."""
ACTIVATIONS = {"GELU": "GELU", "SiLU": "SiLU", "ReLU": "ReLU", "ReluSquared": "ReLUSquared"}
"""Activations that are read as values, and ours."""
EXAMPLE = '"TransformerWrapper(num_tokens=256, max_seq_len=1024, attn_layers=Decoder(dim=512, depth=6))"'
LONGEST_TEXT, LONGEST_FRAGMENT, LARGEST = 100_000, 60, 2**31
POSITIONAL = dict.fromkeys(TRAINERS, "net")
"""Option that may be given without its name."""


class Call(NamedTuple):
    """Call of a class.

    Args:
        name: the class.
        place: where the text calls it.
        options: values by option; a class among them is a `Call`.
        places: where the text gives each option.
    """

    name: str
    place: str
    options: dict[str, Any]
    places: dict[str, str]


def parse(text: str) -> Call:
    """Read the call of a model; UserError with the place and the way out for any other text."""
    text = text.strip()
    if not text:
        raise UserError(f"from-xt: the text is empty; give one call, such as {EXAMPLE}")
    if len(text) > LONGEST_TEXT:
        raise UserError(
            f"from-xt: the text has {len(text)} characters, and at most {LONGEST_TEXT} are read; give the call of one "
            "model alone"
        )
    try:
        with warnings.catch_warnings(action="ignore"):
            statements = ast.parse(text).body
    except SyntaxError as error:
        raise UserError(_explain_syntax(text, error)) from None
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        raise UserError(
            f"from-xt: Python cannot read the text ({type(error).__name__}: {error or 'nested too deeply'}); give one "
            f"call, such as {EXAMPLE}"
        ) from None
    call = _Reader(text).read_value("", _find_model(statements))
    if not isinstance(call, Call) or call.name not in WRAPPERS:
        what = f"{call.name}(...)" if isinstance(call, Call) else repr(_shorten(text))
        raise UserError(f"from-xt: {what} is not a whole model; give a {' or '.join(WRAPPERS[:2])}, such as {EXAMPLE}")
    return call


def _find_model(statements: Sequence[ast.stmt]) -> ast.expr:
    """Find what the statements, none of which is executed, build: their one expression, or the one model among them."""
    built = [each.value for each in statements if isinstance(each, ast.Expr | ast.Assign)]
    if len(statements) == len(built) == 1:
        return built[0]
    models = [each for each in built if isinstance(each, ast.Call) and _find_name(each.func) in WRAPPERS]
    if len(models) != 1:
        raise UserError(
            f"from-xt: the text has {len(statements)} statements, which build {len(models)} models by name; give "
            f"one call, such as {EXAMPLE}"
        )
    return models[0]


def _find_name(node: ast.expr) -> str | None:
    """Return the name of what is called, without the module before it; None if it has none."""
    inner = node.value if isinstance(node, ast.Attribute) else None
    while isinstance(inner, ast.Attribute):
        inner = inner.value
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) and isinstance(inner, ast.Name) else None


class _Reader:
    """Reader of the nodes of a parsed text.

    Args:
        text: the text, which messages quote.
    """

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()

    def read_value(self, option: str, node: ast.expr) -> Any:
        """Read a literal, or the call of a known class."""
        if isinstance(node, ast.Call):
            return self._read_call(option, node)
        value = self._read_literal(option, node)
        for each in _walk(value):
            if isinstance(each, int | float) and not (math.isfinite(each) and abs(each) <= LARGEST):
                raise self._explain(
                    node, f"{option} has the number {_shorten(repr(each))}, which is too large; lower it"
                )
        return value

    def _read_call(self, option: str, node: ast.Call) -> Any:
        name = _find_name(node.func)
        if name is None:
            raise self._explain(
                node.func, "only calls of classes by their name are read; give the call of the model alone"
            )
        if name in ACTIVATIONS and option.endswith("custom_activation"):
            if node.args or node.keywords:
                raise self._explain(node, f"{name} is read without options; omit them")
            return Call(name, self._locate(node), {}, {})
        if name == "dict" and option:
            return {word: self.read_value(word, each) for word, each in self._list_options(name, node)}
        expected = LAYERS if option == "attn_layers" else WRAPPERS if option in ("", "net") else ()
        if name not in expected:
            raise self._explain_class(option, name, node, expected)
        call = Call(name, self._locate(node), {}, {})
        for word, each in self._list_options(name, node):
            if word in call.options:
                raise self._explain(each, f"{name} has the option {word} twice; give it once")
            call.options[word], call.places[word] = self.read_value(word, each), self._locate(each)
        return call

    def _list_options(self, name: str, node: ast.Call) -> Iterator[tuple[str, ast.expr]]:
        """Yield the options of a call."""
        for number, each in enumerate(node.args):
            word = POSITIONAL.get(name) if number == 0 and not isinstance(each, ast.Starred) else None
            if word is None:
                raise self._explain(
                    each, f"{name} has a value without a name; write option=value, as x-transformers does"
                )
            yield word, each
        for keyword in node.keywords:
            if keyword.arg is None:
                raise self._explain(keyword.value, f"{name} has ** options, which are not read; write them out")
            yield keyword.arg, keyword.value

    def _explain_class(self, option: str, name: str, node: ast.Call, expected: tuple[str, ...]) -> UserError:
        if reason := read_texts()[HELPERS].get(name):
            reason = reason.removeprefix("not here: ")
            return self._explain(node, f"{name} is not read ({reason}); give a model without it")
        if expected and name in LAYERS:
            return self._explain(node, f"{name} is not a whole model; give TransformerWrapper(attn_layers={name}(...))")
        if expected:
            return self._explain(node, explain_unknown("class", name, expected))
        way = f"give a literal, or omit {option} and set ours in the printed config"
        return self._explain(node, f"{option} calls {name}, but nothing is executed; {way}")

    def _read_literal(self, option: str, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str | None):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            value = node.operand.value
            if isinstance(value, int | float) and not isinstance(value, bool):
                return -value
        if isinstance(node, ast.Tuple | ast.List):
            return tuple(self._read_literal(option, each) for each in node.elts)
        if isinstance(node, ast.Dict):
            return dict(self._read_item(option, *item) for item in zip(node.keys, node.values, strict=True))
        what = option or "the text"
        if isinstance(node, ast.Name):
            raise self._explain(node, f"{what} has the name {node.id}, whose value is unknown; write the value")
        kinds = "a number, a text, True, False, None, or a tuple, list or dict of them"
        raise self._explain(node, f"{what} is not a literal ({kinds}); write its value")

    def _read_item(self, option: str, key: ast.expr | None, value: ast.expr) -> tuple[str, Any]:
        if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
            raise self._explain(value, f"{option} has a key that is not a text in quotes; write it so")
        return key.value, self._read_literal(option, value)

    def _locate(self, node: ast.expr) -> str:
        # Columns of Python count bytes.
        before = self._lines[node.lineno - 1].encode()[: node.col_offset].decode(errors="replace")
        return f"line {node.lineno}, column {len(before) + 1}"

    def _explain(self, node: ast.expr, sentence: str) -> UserError:
        line = self._lines[node.lineno - 1].encode()
        last = node.end_col_offset if node.end_lineno == node.lineno else None
        fragment = _shorten(line[node.col_offset : last].decode(errors="replace"))
        return UserError(f"from-xt: {self._locate(node)}, {fragment!r}: {sentence}")


def _walk(value: Any) -> Iterator[Any]:
    """Yield the single values of a literal."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else None
    for each in inner if inner is not None else ():
        yield from _walk(each)
    if inner is None:
        yield value


def _explain_syntax(text: str, error: SyntaxError) -> str:
    lines, row, column = text.splitlines(), error.lineno or 1, error.offset or 1
    line = lines[row - 1] if 0 < row <= len(lines) else ""
    near = _shorten(line[max(0, column - 1 - LONGEST_FRAGMENT // 2) :])
    place = f"line {row}, column {column}, near {near!r}"
    return f"from-xt: {place}: this is not Python ({error.msg}); give one call, such as {EXAMPLE}"


def _shorten(text: str) -> str:
    return text if len(text) <= LONGEST_FRAGMENT else f"{text[:LONGEST_FRAGMENT]}..."
