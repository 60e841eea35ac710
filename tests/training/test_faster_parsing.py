"""The faster functions of the parser give what jsonargparse's own give, and are in place only where we parse."""

from collections import OrderedDict
from contextlib import suppress

import pytest
from jsonargparse import Namespace, _actions, _core, _namespace, _subcommands
from lightning.pytorch.cli import LightningArgumentParser

from lightning_xt.commands.trainer.trainer_options import add_trainer_options
from lightning_xt.data.base import DataModule
from lightning_xt.training.config_parser import ConfigParser
from lightning_xt.training.faster_parsing import ORIGINAL, OptionIndex, faster_parsing, parse_key, recreate_branches
from lightning_xt.training.language_model import LanguageModel

PLACES = [(_subcommands, "find_action_and_subcommand"), (_core, "find_action_and_subcommand")]
PLACES += [(_namespace, "recreate_branches"), (_core, "recreate_branches"), (Namespace, "_parse_key")]


def list_functions():
    return [getattr(place, name) for place, name in PLACES]


def make_parser() -> ConfigParser:
    """Return a parser with the option --verbose of two names, and a subcommand that has fit's options."""
    inner = ConfigParser(exit_on_error=False)
    inner.add_subclass_arguments(DataModule, "data")
    inner.add_subclass_arguments(LanguageModel, "model")
    add_trainer_options(inner)
    parser = ConfigParser(exit_on_error=False)
    parser.add_argument("-c", "--config", action="config")
    parser.add_argument("-v", "--verbose", "--fit", action="store_true")
    parser.add_subcommands().add_subcommand("fit", inner)
    return parser


def test_options_are_found_by_each_of_their_names():
    parser, index = make_parser(), OptionIndex()
    inner = parser._subcommands_action._name_parser_map["fit"]
    names = {name for each in inner._actions for name in (each.dest, *(text[2:] for text in each.option_strings))}
    assert len(names) > 30
    names |= {
        "",
        "fit",
        "missing",
        "model.decoder",
        "data.init_args.path",
        "help",
        "subcommand",
        "verbose",
        "v",
        "config",
    }
    for name in sorted({*names, *(f"fit.{name}" for name in names)}):
        for exclude in (None, _actions._ActionConfigLoad, (_actions.ActionFail, _actions.ActionConfigFile)):
            expected = ORIGINAL["find_action_and_subcommand"](parser, name, exclude)
            assert index.find(parser, name, exclude) == expected, name
            assert index.find(inner, name, exclude) == ORIGINAL["find_action_and_subcommand"](inner, name, exclude)


def test_an_option_that_comes_or_is_replaced_later_is_found():
    parser, index = LightningArgumentParser(), OptionIndex()
    parser.add_argument("--source", type=int)
    assert index.find(parser, "target") == (None, None)
    parser.add_argument("--target", type=int)
    assert type(index.find(parser, "target")[0]).__name__ == "ActionTypeHint"
    parser.link_arguments("source", "target")
    expected = ORIGINAL["find_action_and_subcommand"](parser, "target")
    assert index.find(parser, "target") == expected != (None, None)


@pytest.mark.parametrize("skip", [None, {"__path__", "b"}])
def test_copies_are_equal_and_share_no_container(skip):
    inner = Namespace(b=[1, {"__path__": 2, "c": Namespace(items=3)}], d=None, keys="x")
    data = Namespace(a=inner, e={"f": [OrderedDict(g=[1])], 1: (2, [3])}, __path__="p", h=int)
    found, expected = recreate_branches(data, skip), ORIGINAL["recreate_branches"](data, skip)
    assert found == expected and repr(found) == repr(expected)
    assert type(found.a) is Namespace and found.a is not data.a and found.e is not data.e
    found.a["keys"], found.e["f"][0]["new"] = "y", 1
    # Other kinds of containers are not copied, as in jsonargparse.
    assert data.a["keys"] == "x" and data.e["f"][0]["new"] == 1


@pytest.mark.parametrize("key", ["a", "items", "a.b", "a.missing.c", "", "a..b", "a b", 3, None])
def test_keys_are_parsed_as_before(key):
    data = Namespace(a=Namespace(b=1))
    try:
        expected = ORIGINAL["_parse_key"](data, key)
    except KeyError as error:
        with pytest.raises(type(error), match=str(error)):
            parse_key(data, key)
    else:
        assert parse_key(data, key) == expected and parse_key(data, key)[1] is expected[1]


def test_functions_are_in_place_only_within_the_block():
    before = list_functions()
    assert before == [ORIGINAL[name] for _, name in PLACES]
    with suppress(RuntimeError), faster_parsing():
        inside = list_functions()
        assert not set(inside) & set(before)
        with faster_parsing():
            assert list_functions() == inside
        assert list_functions() == inside
        raise RuntimeError
    assert list_functions() == before
