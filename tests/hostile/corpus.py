"""Malformed inputs of all kinds."""

from hostile import (
    archives,
    checkpoints,
    classes,
    command_lines,
    configs,
    downloads,
    places,
    reports,
    texts,
    tokenizer_files,
)

FAMILIES = (
    archives, checkpoints, classes, command_lines, configs, downloads, places, reports, texts, tokenizer_files,
)  # fmt: skip
CASES = tuple(case for family in FAMILIES for case in family.cases())
