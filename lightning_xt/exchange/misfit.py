"""Refusals of an export: a model that a format cannot hold."""


class MisfitError(ValueError):
    """Model that does not fit a format; the message names the option and the way out."""
