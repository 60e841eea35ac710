"""The embedded corpus: its files and splits."""

import pytest

from lightning_xt.data.text import standard_library
from lightning_xt.data.text.standard_library import StandardLibrary, list_sources, standard_library_folder


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Write 43 sources m00.py to m42.py into two folders, and files that must not be read."""
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path / "data"))
    root = tmp_path / "lib"
    for n in range(43):
        folder = root / ("a" if n < 30 else "b-c/d")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"m{n:02}.py").write_bytes(b"# %02d" % n + (b"\n" if n % 2 else b""))
    for left_out in ("site-packages", "dist-packages", "test", "a/tests", "idlelib/sub", "b-c/lib2to3"):
        (root / left_out).mkdir(parents=True)
        (root / left_out / "no.py").write_text("NO")
    (root / "a" / "no.txt").write_text("NO")
    (root / "a" / "no.pyc").write_text("NO")
    (root / "a" / "folder.py").mkdir()
    monkeypatch.setattr(standard_library, "standard_library_folder", lambda: root)
    return root


def test_every_twentieth_file_is_held_out(tree):
    assert [path.stem for path in list_sources(tree)] == [f"m{n:02}" for n in range(43)]
    splits = StandardLibrary().prepare()
    # Files 19 and 39; both end in a newline.
    assert splits.validation.path.read_bytes() == b"# 19\n# 39\n"
    assert splits.test is splits.validation
    train = "".join(f"# {n:02}\n" for n in range(43) if n not in (19, 39))
    # Odd files end in a newline, even ones get one, but not the last.
    assert splits.train.path.read_bytes() == train[:-1].encode()
    assert len(list((tree.parent / "data" / "prepared").iterdir())) == 2


def test_files_are_sorted_by_their_whole_path(tmp_path):
    for name in ("b/x.py", "b.py", "a/z.py", "b-/x.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    found = [path.relative_to(tmp_path).as_posix() for path in list_sources(tmp_path)]
    assert found == sorted(found) == ["a/z.py", "b-/x.py", "b.py", "b/x.py"]


def test_a_python_without_sources(tree):
    for path in list_sources(tree)[19:]:
        path.unlink()
    with pytest.raises(ValueError, match=r"has 19 .py files.*at least 20.*--data TextFiles --data.path"):
        StandardLibrary().setup("fit")


def test_a_window_longer_than_the_held_out_files(tree):
    with pytest.raises(ValueError, match=r"needs at least 12 tokens.*validation split.*has 10; lower --data.seq_len"):
        StandardLibrary(seq_len=11).setup("fit")


def test_the_real_one(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path))
    files = [path.relative_to(standard_library_folder()) for path in list_sources(standard_library_folder())]
    assert len(files) > 300 and "argparse.py" in map(str, files)
    assert not {"site-packages", "dist-packages", "test", "tests"} & {part for file in files for part in file.parts}
    data = StandardLibrary(eval_batch_size=64)
    data.setup("fit")
    assert len(data.splits.train) > 10 * len(data.splits.validation) > 0
    assert sum(int(batch.scored.sum()) for batch in data.val_dataloader()) == len(data.splits.validation) - 1
