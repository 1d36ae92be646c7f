"""Laws of `normalize_text` and `split_at_marks`."""

import pytest

from ditar_hf.modeling.normalization_ditar import normalize_text, split_at_marks


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ｈｅｌｌｏ，　ｗｏｒｌｄ！", "Hello, world!"),
        ("好。是、吗？！；：", "好. 是, 吗?"),
        ("wait... what?! no…… . . . ok", "wait… what? no… ok"),
        ("it’s ‘so-called’ “rock ’n’ roll” dogs'", "it's so-called rock n roll dogs"),
        ("a — b - c -- d–e", "a, b, c, d-e"),
        ("(one) [two] {three} «four» <five>", "one two three four five"),
        ("**bold** _it_ #tag C# ~~no~~", "bold it #tag C# no"),
        ("a\u200bb\u00adc\x07d\te\r\nf\u2028g", "abcd e f g"),
        ("hi 👋🏽 there ❤️ 1️⃣ 👨‍👩‍👧 ok", "hi there 1 ok"),
        ("¿Qué? ¡No!", "Qué? No!"),
        ("2 × 3 = 6, −5 °C", "2 × 3 = 6, -5 °C"),
        ("3.14 1,000 12:30 U.S.A. e.g. this example.com end.", "3.14 1,000 12:30 U.S.A. e.g. this example.com end."),
        (" \ue000 \U000f0000 \ufdd0 \u3164 x", "x"),
    ],
)
def test_normalisation(text, expected):
    assert normalize_text(text, "de") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$5.20", "5 dollars 20 cents"),
        ("$1 or $1.01", "1 dollar or 1 dollar 1 cent"),
        ("€3, £2.50 and ¥500", "3 euros, 2 pounds 50 pence and 500 yen"),
        ("$1,000,000.00 or $2.5 billion", "1,000,000 dollars or 2.5 billion dollars"),
        ("42% of .5", "42% of 0.5"),
        ("pages 10-20, call 555-1234, 3-2", "pages 10 to 20, call 555-1234, 3-2"),
        ("Dr. No, Mr. X vs. Prof. Y", "doctor No, mister X versus professor Y"),
        ("St. Ives, Main St. and so on, etc. Then", "saint Ives, Main street and so on, etcetera. Then"),
        ("No. 5 is #1. No.", "number 5 is number 1. No."),
    ],
)  # fmt: skip
def test_english_amounts_and_abbreviations_are_written_out(text, expected):
    assert normalize_text(text, "en-us") == expected


def test_kana_are_separated_from_latin_letters():
    assert normalize_text("AIです", "ja") == "AI です"


@pytest.mark.parametrize("text", ["bad \ud83d", None, b"bytes"])
def test_what_is_no_text_is_refused(text):
    with pytest.raises(ValueError, match="`text` (must be a string|holds a lone surrogate .U.D83D at position 4)"):
        normalize_text(text)


def test_text_is_cut_at_marks_that_belong_to_no_word():
    assert split_at_marks("at 3.14, see example.com!") == ["at 3.14", ",", " see example.com", "!", ""]
    assert split_at_marks("") == [""]
