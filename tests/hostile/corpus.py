"""All malformed inputs."""

from hostile import archives, places, texts

FAMILIES = (archives, texts, places)
CASES = tuple(case for family in FAMILIES for case in family.cases())
