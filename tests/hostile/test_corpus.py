"""Malformed inputs: a sample in the default suite, all of them in the slow suite and by `make chaos`."""

import random
import sys
from pathlib import Path

import pytest
from hostile.base import make_base
from hostile.case import Case, find_problems
from hostile.corpus import CASES

SHARE = 25
"""One of this many cases is in the default suite."""
CHOSEN = {case.name for case in random.Random(0).sample(CASES, len(CASES) // SHARE)}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make_base(folder)
    return folder


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=() if case.name in CHOSEN else pytest.mark.slow, id=case.name) for case in CASES],
)
def test_a_malformed_input_gives_one_sentence(case: Case, base: Path, tmp_path: Path) -> None:
    assert find_problems(case, base, tmp_path / "case") == []


def test_the_corpus_is_large_and_has_no_case_twice() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 200
    assert all(case.says for case in CASES)


def test_a_separate_process_says_the_same(base: Path, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "checkpoint: info, a pickle that runs a command")
    assert find_problems(case, base, tmp_path / "case", apart=True) == []


def case(*command: str, **options) -> Case:
    return Case(name="made up", command=command, **{"says": ["nowhere is not a run"], **options})


def test_what_is_wrong_with_an_answer_is_found(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_problems(case("info", "nowhere"), base, tmp_path / "0") == []
    (missing,) = find_problems(case("info", "nowhere", says=["another sentence"]), base, tmp_path / "1")
    assert missing.startswith("it does not say 'another sentence': 'lightning-xt: error: nowhere is not a run")
    good = find_problems(case("info", "runs/tiny", says=["x"]), base, tmp_path / "2")
    assert good[0] == "it ends with 0" and good[1] == "it is not one sentence: ''"

    def careless(command):
        Path("new.txt").touch()
        Path("corpus.txt").write_text("gone")
        Path("prompts.txt").unlink()
        print("lightning-xt: error: nowhere is not a run", file=sys.stderr)
        return 2

    monkeypatch.setattr("hostile.case.main", careless)
    wrong = ["corpus.txt is changed", "new.txt is new", "prompts.txt is gone"]
    assert find_problems(case("info", "nowhere"), base, tmp_path / "3") == wrong

    def broken(command):
        raise KeyError("a fault")

    monkeypatch.setattr("hostile.case.main", broken)
    assert find_problems(case("info", "nowhere"), base, tmp_path / "4")[:2] == [
        "it ends with a traceback",
        "there is a traceback",
    ]

    def hungry(command):
        bytearray(3 << 29)[:] = b"1" * (3 << 29)
        print("lightning-xt: error: nowhere is not a run", file=sys.stderr)
        return 2

    monkeypatch.setattr("hostile.case.main", hungry)
    (fault,) = find_problems(case("info", "nowhere"), base, tmp_path / "5")
    assert fault.endswith("MiB of memory")

    def slow(command):
        while True:
            pass

    monkeypatch.setattr("hostile.case.main", slow)
    monkeypatch.setattr("hostile.case.SECONDS", 1)
    assert find_problems(case("info", "nowhere"), base, tmp_path / "6")[0] == "it ends with no answer within 1 s"
