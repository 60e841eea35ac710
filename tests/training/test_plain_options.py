"""Options as plain values: written again once they have changed, and new at every reading."""

from jsonargparse import Namespace

from lightning_xt.commands.trainer.plain_options import PlainOptions
from lightning_xt.training.config_parser import ConfigParser


def test_options_are_written_once_until_they_change(monkeypatch):
    parser, texts = ConfigParser(), []
    parser.add_argument("--a.b", type=int | None, default=1)
    parser.add_argument("--c", type=list[float], default=[2.0])
    dump = ConfigParser.dump
    monkeypatch.setattr(
        ConfigParser, "dump", lambda *args, **options: texts.append(dump(*args, **options)) or texts[-1]
    )
    options, plain = parser.parse_args([]), PlainOptions()
    first = plain.read(parser, options)
    assert first == {"a": {"b": 1}, "c": [2.0]}
    first["a"]["b"], options_before = 9, options.clone()
    assert plain.read(parser, options) == {"a": {"b": 1}, "c": [2.0]} and len(texts) == 1
    options.a.b = None
    assert plain.read(parser, options) == {"a": {"b": None}, "c": [2.0]} and len(texts) == 2
    assert options_before == Namespace(a=Namespace(b=1), c=[2.0])
