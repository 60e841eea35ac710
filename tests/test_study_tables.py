"""The tables of the published studies are those of their CSV files."""

import pytest
from study_tables import PAGES, PLACE, STUDIES, fill


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_studies(page):
    text = page.read_text("utf-8")
    assert {place[1] for place in PLACE.finditer(text)} == {file.stem for file in STUDIES.glob("*.csv")}
    assert fill(text, page) == text
