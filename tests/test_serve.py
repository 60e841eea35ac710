"""serve from the command line: names of runs, keys, and mistakes, which end with one sentence before models load."""

import importlib.util
import math
import socket
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from served_models import make_completer, make_translator

from lightning_xt.cli import main
from lightning_xt.commands import serve
from lightning_xt.commands.serving.serve_options import check_options, is_loopback, name_runs
from lightning_xt.commands.serving.warm_up import warm_up
from lightning_xt.inference.serving.serving_engine import Engine
from lightning_xt.system.messages import UserError

Refuse = Callable[..., str]


@pytest.fixture
def refuse(trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Return a function that runs serve, which must end with one sentence and load nothing, and returns that."""

    def run(*args: str) -> str:
        monkeypatch.setattr("lightning_xt.commands.serving.model_server.load", lambda run: pytest.fail("loads a model"))
        capsys.readouterr()
        assert main(["serve", *args]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.startswith("lightning-xt: error: ")
        assert captured.err.count("\n") == 1
        return captured.err.removeprefix("lightning-xt: error: ").strip()

    return run


def parse(*args: str) -> Namespace:
    parser = ArgumentParser()
    serve.add_options(parser)
    return parser.parse_args(args)


def make_checkpoint(folder: Path) -> Path:
    file = folder / "checkpoints" / "last.ckpt"
    file.parent.mkdir(parents=True)
    file.touch()
    return file


def test_models_are_named_by_their_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = [make_checkpoint(Path("runs", *parts)).resolve() for parts in (["a", "0"], ["a", "1"], ["odd=name", "0"])]
    alone = tmp_path / "weights.ckpt"
    alone.touch()
    assert name_runs(["runs/a"]) == {"a": Path("runs/a/1/checkpoints/last.ckpt")}
    named = name_runs(["runs/a/0", "new=runs/a", str(alone), "odd=runs/odd=name", "x=runs/odd=name/0"])
    assert {name: path.resolve() for name, path in named.items()} == {
        "a": files[0],
        "new": files[1],
        "weights": alone,
        "odd": files[2],
        "x": files[2],
    }


def test_a_name_that_is_given_twice_or_cannot_be_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for parts in (["a", "0"], ["a", "1"], ["odd=name", "0"]):
        make_checkpoint(Path("runs", *parts))
    with pytest.raises(UserError, match="two runs have the name a; give each its own, as in a-a=runs/a/0 a-b=runs/a/1"):
        name_runs(["runs/a/0", "runs/a/1"])
    with pytest.raises(UserError, match="'odd=name' cannot name a model, because a name has letters"):
        name_runs(["runs/odd=name"])
    with pytest.raises(UserError, match="'' cannot name a model"):
        name_runs(["=runs/a"])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--rows", "0"], "serve: --rows is 0, but it must be at least 1"),
        (["--tokens", "1"], "serve: --tokens is 1, but it must be at least 2"),
        (["--max_body_bytes", "5"], "serve: --max_body_bytes is 5, but it must be at least 1024"),
        (["--port", "70000"], "serve: --port is 70000, but ports go from 0 to 65535"),
        (["--timeout", "nan"], "serve: --timeout is nan, but it must be above 0 and at most 86400"),
        (["--drain_timeout", "0"], "serve: --drain_timeout is 0, but it must be above 0 and at most 86400"),
        (["--prot", "1"], "serve: unrecognized arguments: --prot 1; did you mean --port or "),
        (["--weights", "int3"], "serve: argument --weights: invalid choice: 'int3'"),
        (["--weights=int4", "--group_size=0"], "serve: --group_size is 0, but it must be row or a number of at least"),
        (["--weights=int4", "--group_size=x"], "serve: --group_size is x, but it must be row or a number of at least"),
        (["--group_size=64"], "serve: --group_size 64 is for --weights int8 and int4; omit it, or give one of them"),
        (["--chat_template", "chatm"], "--chat_template: unknown template 'chatm'; did you mean chatml?"),
        (["--api_key", "a", "--no_api_key"], "serve: --api_key and --no_api_key exclude each other; omit one of them"),
        (["--api_key", " "], "serve: the API key is empty, or has spaces around it or characters beyond ASCII"),
        (["--host", "not a host"], "--host not a host may be reached by others; set a key in the environment variable"),
        (
            ["--host", "127..0.0.1", "--no_api_key"],
            "--host 127..0.0.1 is not a name or an address of this machine (it is not a name of a machine); give",
        ),
        (["--host", "no.such.host.invalid", "--no_api_key"], "--host no.such.host.invalid is not a name or an address"),
        (["--host", "192.0.2.1", "--api_key", "a"], "--host 192.0.2.1 is not an address of this machine"),
    ],
)
def test_a_wrong_option_is_one_sentence(args: list[str], message: str, refuse: Refuse) -> None:
    assert message in refuse("runs/tiny", *args)


def test_a_run_that_cannot_be_served_is_one_sentence(refuse: Refuse) -> None:
    assert refuse("runs/gone").startswith("runs/gone is not a run: there is no such folder or file")
    Path("runs/empty/0").mkdir(parents=True)
    assert "has checkpoints/best.ckpt" in refuse("runs/tiny", "runs/empty")
    Path("runs/empty/0/checkpoints").mkdir()
    Path("runs/empty/0/checkpoints/last.ckpt").write_text("no checkpoint")
    assert "last.ckpt" in refuse("runs/empty")
    assert "the following arguments are required: RUN" in refuse()


def test_a_masked_model_is_refused(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_xt.training.masked_language_model import MaskedLanguageModel

    monkeypatch.setattr(
        "lightning_xt.commands.serving.model_server.find_module_class", lambda name: MaskedLanguageModel
    )
    assert refuse("runs/tiny").startswith(f"tiny cannot be served: {MaskedLanguageModel.no_generation}")


def test_a_port_in_use_is_one_sentence(refuse: Refuse) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refuse("runs/tiny", "--port", str(port))
    assert said == f"--port {port} is in use on 127.0.0.1 already; stop the other server, or give another port"


def test_another_address_needs_a_key_or_a_word_for_none(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_options(parse("runs/tiny")).api_key is None
    with pytest.raises(UserError, match=r"serve: --host 0.0.0.0 may be reached by others; set a key"):
        check_options(parse("runs/tiny", "--host", "0.0.0.0"))
    assert check_options(parse("runs/tiny", "--host", "0.0.0.0", "--no_api_key")).api_key is None
    assert check_options(parse("runs/tiny", "--host", "0.0.0.0", "--api_key", "b")).api_key == "b"
    monkeypatch.setenv("LIGHTNING_XT_API_KEY", "a")
    assert check_options(parse("runs/tiny", "--host", "0.0.0.0")).api_key == "a"
    assert check_options(parse("runs/tiny", "--no_api_key")).api_key is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_addresses_of_this_machine_alone(host: str) -> None:
    assert is_loopback(host) and not is_loopback("0.0.0.0") and not is_loopback("example.org")


def test_without_the_extra_the_sentence_names_it(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    assert refuse("runs/tiny") == "serve needs uvicorn, not installed here; run: pip install 'lightning-xt[serve]'"


@pytest.mark.parametrize(("rows", "counts"), [(1, [1]), (4, [1, 4]), (6, [1, 4, 6])])
def test_a_warm_up_decodes_one_row_several_and_all(
    rows: int, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine({"lm": (completer := make_completer())}, rows=rows)
    engine.start()
    found = []
    complete = engine.complete
    monkeypatch.setattr(
        engine,
        "complete",
        lambda name, ids, options, on_event: (
            found.append(options.num_return_sequences) or complete(name, ids, options, on_event)
        ),
    )
    warm_up(engine, "lm", completer, rows)
    engine.close()
    assert found == counts


def test_a_warm_up_translates_sources_of_two_lengths_together(monkeypatch: pytest.MonkeyPatch) -> None:
    translator = make_translator()
    monkeypatch.setattr(translator, "tokenize_source", lambda text: ([3] * len(text), None))
    engine = Engine({"pairs": translator}, rows=6)
    engine.start()
    found = []
    translate = engine.translate
    monkeypatch.setattr(
        engine,
        "translate",
        lambda name, text, options, on_event: (
            found.append((text, options.num_return_sequences)) or translate(name, text, options, on_event)
        ),
    )
    warm_up(engine, "pairs", translator, 6)
    engine.close()
    assert found == [("a", 1), ("a", 2), ("a a a", 2), ("a", 3), ("a a a", 3)]


def test_a_model_that_fails_at_its_first_tokens_is_not_served() -> None:
    completer = make_completer()
    torch.nn.init.constant_(completer.model.token_embedding.weight, math.nan)
    engine = Engine({"bad": completer})
    engine.start()
    with pytest.raises(UserError, match=r"^bad cannot be served: the model's scores of the next token are not finite"):
        warm_up(engine, "bad", completer, 4)
    engine.close()
