"""A run that is killed and resumed ends as one that was left alone, and the check would say so if it did not."""

import random
import re
import shutil

import pytest
import torch
from resume_check import SETTINGS, check, differences, load, steps_to_kill


def test_half_of_each_choice_saves_at_the_end_of_epochs():
    assert len(set(SETTINGS)) == 8
    for name in ("workers", "accumulate", "processes"):
        for value in {getattr(setting, name) for setting in SETTINGS}:
            chosen = [setting.at_epochs_end for setting in SETTINGS if getattr(setting, name) == value]
            assert sorted(chosen) == [False, False, True, True]


def test_a_killed_run_ends_as_if_nothing_had_been(tmp_path):
    setting = SETTINGS[0]
    history, found = check(setting, tmp_path, 40, [14])
    assert found == []
    assert re.fullmatch(r"killed after (1[5-9]|[23]\d), resumed from (8|16|24|32)", history)
    whole, other = tmp_path / "whole/runs/check/0", tmp_path / "killed/runs/check/0"
    assert load(other / "checkpoints/last.ckpt")["TextFiles"]["samples_seen"] == 40 * 4
    assert len((other / "metrics.csv").read_text().splitlines()) == 41
    # What differs is told by name.
    changed = load(other / "checkpoints/last.ckpt")
    changed["state_dict"]["decoder.token_embedding.weight"][0, 0] += 1e-7
    torch.save(changed, other / "checkpoints/last.ckpt")
    lines = (other / "metrics.csv").read_text().splitlines()
    loss = lines[0].split(",").index("train/loss")
    cells = lines[5].split(",")
    cells[loss] += "1"
    (other / "metrics.csv").write_text("\n".join([*lines[:5], ",".join(cells), *lines[6:]]) + "\n")
    (other / "samples.txt").unlink()
    shutil.copy(whole / "samples.txt", other / "samples.txt")
    with (other / "samples.txt").open("a") as file:
        file.write("=== step 40 ===\n")
    found = list(differences(whole, other))
    assert [line.split(":")[0] for line in found] == [
        "checkpoints/last.ckpt/state_dict/decoder.token_embedding.weight",
        "metrics.csv/4/train/loss",
        "samples.txt",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_every_setting(setting, tmp_path):
    kills = steps_to_kill(random.Random(str(setting)), 200)
    assert check(setting, tmp_path, 200, kills)[1] == []
