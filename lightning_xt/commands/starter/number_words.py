"""Numbers in words, in English and in German: pairs of texts that a small model learns to translate."""

import random

ENGLISH = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
ENGLISH_TENS = ("zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
GERMAN = (
    "null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf",
    "dreizehn", "vierzehn", "fünfzehn", "sechzehn", "siebzehn", "achtzehn", "neunzehn",
)  # fmt: skip
GERMAN_TENS = (
    "null", "zehn", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig",
)  # fmt: skip
MOST = 10_000


def spell_english(number: int) -> str:
    """Return a number below 10,000 in English words."""
    if number < 20:
        return ENGLISH[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return ENGLISH_TENS[tens] + (f"-{ENGLISH[ones]}" if ones else "")
    unit, word = (1000, "thousand") if number >= 1000 else (100, "hundred")
    many, rest = divmod(number, unit)
    joint = " and " if rest < 100 else " "
    return f"{ENGLISH[many]} {word}" + (f"{joint}{spell_english(rest)}" if rest else "")


def spell_german(number: int) -> str:
    """Return a number below 10,000 in German words."""
    if number < 20:
        return GERMAN[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return (f"{_shorten(ones)}und" if ones else "") + GERMAN_TENS[tens]
    unit, word = (1000, "tausend") if number >= 1000 else (100, "hundert")
    many, rest = divmod(number, unit)
    return _shorten(many) + word + (spell_german(rest) if rest else "")


def write_pairs() -> str:
    """Return lines with a number in English, a tab, and the number in German, in a random order that never changes."""
    numbers = list(range(MOST))
    random.Random(0).shuffle(numbers)
    return "".join(f"{spell_english(each)}\t{spell_german(each)}\n" for each in numbers)


def _shorten(number: int) -> str:
    """Return a digit as it stands before another word."""
    return "ein" if number == 1 else GERMAN[number]
