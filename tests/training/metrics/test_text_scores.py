"""BLEU and chrF, compared with sacrebleu."""

import random

import pytest
import sacrebleu

from lightning_xt.training.metrics.text_scores import TextScores

GERMAN = ["Ein Mann mit einem roten Hut, der etwas anstarrt.", "Zwei Männer -- „nahe“ 3,5 Büschen!", "Ja."]
CORPORA = {
    "right": (GERMAN, GERMAN),
    "one right and nine empty": ([GERMAN[0], *[""] * 9], [GERMAN[0], *GERMAN * 3]),
    "one right and nine disjoint": ([GERMAN[0], *["xyz uvw q"] * 9], [GERMAN[0], *["Это другое предложение"] * 9]),
    "all empty": (["", ""], GERMAN[:2]),
    "empty references": (GERMAN, ["", "", ""]),
    "both empty": (["", ""], ["", ""]),
    "disjoint": (["abc abd", "q"], ["xyz", "Это"]),
    "one sentence": (["Ein Mann mit einem Hut der starrt."], [GERMAN[0]]),
    "one word": (["Hut"], ["Hut"]),
    "one character": (["a"], ["a"]),
    "three words": (["Ein Mann geht"], ["Ein Mann geht"]),
    "no four words": (["Ein Mann geht heute nicht"], ["Heute geht ein Mann nicht"]),
    "shorter than its n-grams": (["ab", "abcdefgh"], ["abcdefg", "ab"]),
    "white space only": ([" \t\n", "\u3000"], [" ", GERMAN[0]]),
    "odd white space": (
        ["Ein\u00a0Mann\tmit\u3000 einem\x1cHut\u2028der\x85", "a\n b-\nc \r"],
        ["Ein Mann mit einem Hut der", "a bc"],
    ),
    "zero width": (["Ein\u200bMann", "\ufeffa b c d"], ["Ein Mann", "a b c d"]),
    "combining": (["Bu\u0308schen e\u0301"], ["Büschen é"]),
    "emoji and others": (["👩\u200d🚀 fliegt 🚀", "我喜欢猫"], ["👩 fliegt 🚀🚀", "我喜歡狗"]),
    "entities": (["&quot;a&quot; &amp;lt; b &gt;", "x<skipped>y"], ['"a" < b >', "x y"]),
    "numbers": (["3,5 1.000-2 7- -7 .5 5. 5.,5"], ["3.5 1,000 - 2 7 -7 0.5 5 . 5,.5"]),
    "punctuation": (["{|}~[\\]^_`!\"#$%&()*+:;<=>?@/'-.,"], ["{ | } ~ [ \\ ] ^ _ ` ! \" # $ % & ( ) * + / ' - . ,"]),
    "NUL and halves": (["a\x00b \ud800 c"], ["a\x00b \udfff c"]),
}


def score(predictions, references):
    found = TextScores()
    for pair in zip(predictions, references, strict=True):
        found.update(*([text] for text in pair))
    scores = found.compute()
    return scores["bleu"], scores["chrf"]


def expect(predictions, references):
    bleu, chrf = (each(predictions, [references]) for each in (sacrebleu.corpus_bleu, sacrebleu.corpus_chrf))
    return pytest.approx((bleu.score, chrf.score), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", CORPORA)
def test_cases_d2_scores_of_bad_texts_are_those_of_sacrebleu(name):
    predictions, references = CORPORA[name]
    assert score(predictions, references) == expect(predictions, references)


def test_cases_d2_a_right_answer_does_not_make_up_for_nine_empty_ones():
    predictions, references = CORPORA["one right and nine empty"]
    bleu, chrf = score(predictions, references)
    assert bleu < 20 and chrf < 30


def test_cases_d2_random_texts():
    draw = random.Random(0)
    pieces = [
        *"ab.,-&3'\n\t ",
        " ",
        " ",
        "\u00a0",
        "\x1c",
        "é",
        "&lt;",
        "the",
        "the cat",
        "1.5",
        "<skipped>",
        "-\n",
        "猫",
    ]
    for _ in range(200):
        size = draw.randint(1, 5)
        texts = ["".join(draw.choices(pieces, k=draw.randint(0, 14))) for _ in range(2 * size)]
        assert score(texts[:size], texts[size:]) == expect(texts[:size], texts[size:]), texts
