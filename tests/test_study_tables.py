"""The tables of the published studies are those of their CSV files, and these have the results of their archives."""

import json
import tarfile

import pytest
from study_tables import PAGES, PLACE, STUDIES, fill, read_rows

NAMES = sorted(file.stem for file in STUDIES.glob("*.csv"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_studies(page):
    text = page.read_text("utf-8")
    assert {place[1] for place in PLACE.finditer(text)} == set(NAMES)
    assert fill(text, page) == text


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_the_results_of_the_archive(name):
    with tarfile.open(STUDIES / f"{name}.tar.xz") as archive:
        found = {each.name: json.load(archive.extractfile(each)) for each in archive}
    kept = {
        file.removeprefix("results/repeat/").removesuffix(".json"): result["metrics"]["val/bits_per_byte"]
        for file, result in found.items()
        if file.startswith("results/repeat/") and "error" not in result
    }
    shown = {
        f"{row['variant']}-{seed}": float(value)
        for row in read_rows(STUDIES / f"{name}.csv")
        for seed, value in zip(row["seeds"].split(), row["values"].split(), strict=True)
    }
    assert shown == kept and found["plan.json"]["seeds"] == 3
