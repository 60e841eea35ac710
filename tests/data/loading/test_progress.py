"""The bar: it changes nothing, and is shown only on a terminal after a while."""

import io
import re
import time

import pytest
from rich.console import Console

from lightning_xt.data.loading import progress
from lightning_xt.data.loading.progress import count_progress, show_activity, with_progress
from lightning_xt.system import time_left


@pytest.fixture
def screen(monkeypatch):
    """Return the output to a terminal, on which a bar is drawn at once."""
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=200)
    monkeypatch.setattr(progress, "Console", lambda stderr: console if stderr else pytest.fail("not standard error"))
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return written


def blocks():
    for n in range(5):
        yield bytes(n)


@pytest.mark.parametrize("total", [10, 20, None])
def test_blocks_pass_unchanged(screen, total):
    assert list(with_progress(blocks(), "reading [x] y.txt", total)) == list(blocks())
    assert "reading [x] y.txt" in screen.getvalue()


def test_what_is_there_already_counts(screen):
    stream = with_progress(blocks(), "resuming", 20, done=10)
    assert next(stream) == b""
    stream.close()
    assert "10/20 bytes" in screen.getvalue()


def test_no_bar_for_a_moment(screen, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 60.0)
    assert list(with_progress(blocks(), "reading", 10)) == list(blocks())
    assert screen.getvalue() == ""


@pytest.mark.parametrize(("rank", "drawn"), [("0", True), ("1", False)])
def test_one_process_draws(screen, monkeypatch, rank, drawn):
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert list(with_progress(blocks(), "reading", 10)) == list(blocks())
    assert bool(screen.getvalue()) == drawn


def test_no_bar_without_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    assert list(with_progress(blocks(), "reading", 10)) == list(blocks())
    assert capsys.readouterr() == ("", "")


def test_an_error_takes_the_bar_away(screen):
    def broken():
        yield b"x"
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(with_progress(broken(), "reading", 10))
    assert screen.getvalue().endswith("\x1b[2K")  # the line is cleared


def test_work_without_a_known_end_shows_its_seconds(screen, monkeypatch):
    with show_activity("merging [x]"):
        time.sleep(0.15)
    assert "merging [x]" in screen.getvalue() and screen.getvalue().endswith("\x1b[2K")
    screen.truncate(0)
    monkeypatch.setattr(progress, "PATIENCE", 60.0)
    with show_activity("merging"):
        pass
    monkeypatch.setenv("LOCAL_RANK", "1")
    with show_activity("merging"):
        pass
    assert screen.getvalue() == ""


def test_texts_pass_too(screen):
    assert list(with_progress(iter(["ab", "c"]), "training", 3)) == ["ab", "c"]
    assert "training" in screen.getvalue()


def test_items_are_counted(screen):
    assert list(count_progress("abc", "tokenizing", 3)) == ["a", "b", "c"]
    assert "tokenizing" in screen.getvalue() and "1/3" in screen.getvalue()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_without_a_terminal_lines_say_how_long_it_takes(monkeypatch, capsys, rank):
    monkeypatch.setattr(time_left.TimeLeft, "is_due", lambda left: True)
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert list(with_progress(blocks(), "reading x\x1b.txt", 10)) == list(blocks())
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (5 if rank == "0" else 0)
    if lines:
        assert re.fullmatch(r"reading x\\x1b\.txt: 60 %, \d:\d\d:\d\d left", lines[3])
