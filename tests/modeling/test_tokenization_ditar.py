"""Laws of `DiTARTokenizer`: phoneme strings, round trips, languages, threads, and what it refuses."""

import copy
import json
import multiprocessing
import pickle
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from ditar_hf.modeling import tokenization_ditar
from ditar_hf.modeling.configuration_ditar import DiTARConfig
from ditar_hf.modeling.tokenization_ditar import (
    PUNCTUATION_MARKS,
    DiTARTokenizer,
    normalize_text,
    resolve_language,
)

SENTENCES = {
    "en-us": [
        "The quick brown fox jumps over the lazy dog.",
        "She had your dark suit in greasy wash water all year, hadn't she?",
        "Dr. Watson paid $5.20 (42%) at 12:30; was it a joke, or a treasure?",
        "Joy, church, vision, thing, boy, how, fire, poor: eight hundred and fifty-seven words!",
    ],
    "cmn": ["妈麻马骂吗，你好世界。", "我用Python写了3.5个程序！", "老师说：“学习中文很有意思”……"],
    "de": ["Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.", "Ich heiße Müller – und Sie?"],
    "fr-fr": ["Portez ce bon vieux whisky au juge blond qui fume.", "« Ça va ? » L’homme, aujourd’hui : 3,50 €."],
    "ja": ["いろはにほへと、ちりぬるを。", "ラーメン が すき です！"],
    "ko": ["안녕하세요, 만나서 반갑습니다.", "까치가 학교에서 공부해요?"],
}
ROWS = [(language, sentence) for language, sentences in SENTENCES.items() for sentence in sentences]
CONTROL_TOKENS = ["<pad>", "<unk>", "<audio_bos>", "<audio_patch>"]


@pytest.fixture(scope="module")
def tokenizer() -> DiTARTokenizer:
    return DiTARTokenizer.from_texts(SENTENCES)


@pytest.fixture
def english() -> DiTARTokenizer:
    return DiTARTokenizer.from_texts(SENTENCES["en-us"])


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr(tokenization_ditar.logger, "warning_once", messages.append)
    return messages


# Phoneme strings


def test_a_phoneme_string_is_ipa_with_spaces_and_punctuation(tokenizer):
    assert tokenizer.phonemize("The quick brown fox.") == "ðə kwˈɪk bɹˈaʊn fˈɑːks."
    assert tokenizer.tokenize("The quick fox.") == list("ðə kw") + ["ˈɪ", "k", " ", "f", "ˈɑː", "k", "s", "."]


@pytest.mark.parametrize(("language", "sentence"), ROWS)
def test_decoding_the_ids_gives_the_phoneme_string(tokenizer, language, sentence):
    phonemes = tokenizer.phonemize(sentence, language)
    ids = tokenizer(sentence, language=language)["input_ids"]
    assert phonemes
    assert tokenizer.decode(ids) == tokenizer.decode(ids, skip_special_tokens=True) == phonemes
    assert tokenizer(phonemes, phonemize=False)["input_ids"] == ids
    assert not tokenizer.unknown_symbols


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_tokens_of_any_phoneme_string_are_its_longest_matches(tokenizer, data):
    vocabulary = [token for token in tokenizer.get_vocab() if token not in CONTROL_TOKENS]
    phonemes = "".join(data.draw(st.lists(st.sampled_from(vocabulary), max_size=30)))
    tokens = tokenizer.tokenize(phonemes, phonemize=False)
    assert "".join(tokens) == tokenizer.convert_tokens_to_string(tokens)
    assert tokenizer.decode(tokenizer.convert_tokens_to_ids(tokens)) == "".join(tokens)
    position = 0
    for token in tokens:
        rest = "".join(tokens)[position:]
        assert not any(len(other) > len(token) and rest.startswith(other) for other in vocabulary)
        position += len(token)


@given(text=st.text(max_size=60), language=st.sampled_from(list(SENTENCES)))
@settings(max_examples=150, deadline=None)
def test_any_text_gives_ids_or_a_value_error(tokenizer, text, language):
    try:
        ids = tokenizer(text, language=language)["input_ids"]
    except ValueError as error:
        assert "surrogate" in str(error)
        return
    phonemes = tokenizer.phonemize(text, language)
    assert len(ids) <= len(phonemes)
    assert not set(ids) & set(tokenizer.convert_tokens_to_ids(["<pad>", "<audio_bos>", "<audio_patch>"]))
    # One space between words, one mark after a word, no other symbols of written text.
    assert phonemes == " ".join(phonemes.split())
    assert not set(phonemes) & set("()[]{}<>|_/\\'\"-$%&@#*~^`")
    marks = [index for index, char in enumerate(phonemes) if char in PUNCTUATION_MARKS]
    assert all(index > 0 and phonemes[index - 1] not in " " + PUNCTUATION_MARKS for index in marks)
    assert all(phonemes[index + 1 : index + 2] in (" ", "") for index in marks)


@pytest.mark.parametrize("text", ["", "   \n", "...", "?!", "😀 🎉", "\x00\u200b", "“ ” ( )", "--- *** ___"])
def test_text_without_speech_is_an_empty_phoneme_string(tokenizer, text):
    assert tokenizer.phonemize(text) == ""
    assert tokenizer(text)["input_ids"] == []


def test_rows_without_speech_keep_their_place(tokenizer):
    assert tokenizer.phonemize(["one", "", "…", "two"]) == [tokenizer.phonemize("one"), "", "", "tˈuː"]


def test_a_segment_without_sound_does_not_shift_the_others(tokenizer):
    assert tokenizer.phonemize("five, ( ), two;(x) \u0f3a three.") == "fˈaɪv, tˈuː; ˈɛks θɹˈiː."
    # espeak-ng has no sound for the middle segment.
    assert tokenizer.phonemize("five, \u0f19, two.") == "fˈaɪv, tˈuː."


# The vocabulary


def test_the_vocabulary_starts_with_control_tokens_and_punctuation(tokenizer):
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    assert tokens[:12] == [*CONTROL_TOKENS, " ", *PUNCTUATION_MARKS]
    assert tokens[12:] == sorted(tokens[12:])
    assert list(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    assert tokenizer.vocab_size == len(tokenizer)
    assert (tokenizer.pad_token_id, tokenizer.audio_bos_token_id, tokenizer.audio_patch_token_id) == (0, 2, 3)


def test_the_vocabulary_holds_whole_phones_and_each_of_their_characters(tokenizer):
    phones = [token for token in tokenizer.get_vocab() if token not in CONTROL_TOKENS]
    assert {"ˈɑː", "ˈaʊ", "tʃ", "ˈɑ˨˩˦", "ʂ", "ˈɔ̃", "q͈"} <= set(phones)
    assert {char for phone in phones for char in phone} <= set(phones)
    assert not any(mark in phone and mark != phone for phone in phones for mark in PUNCTUATION_MARKS + " ")


def test_the_vocabulary_does_not_depend_on_the_order_of_texts():
    sentences = SENTENCES["en-us"]
    assert DiTARTokenizer.build_vocabulary(sentences) == DiTARTokenizer.build_vocabulary(iter(sentences[::-1]))
    mapping = {language: SENTENCES[language] for language in ("de", "en-us")}
    reverse = dict(reversed(mapping.items()))
    assert DiTARTokenizer.build_vocabulary(mapping) == DiTARTokenizer.build_vocabulary(reverse)


def test_a_vocabulary_can_be_made_of_phones():
    tokenizer = DiTARTokenizer.from_phonemes(["tʃ", "ˈɑː"], languages=["en"])
    assert tokenizer.languages == ["en-us"]
    assert set(tokenizer.get_vocab()) - {*CONTROL_TOKENS, " ", *PUNCTUATION_MARKS} == {"tʃ", "ˈɑː", *"tʃˈɑː"}


@pytest.mark.parametrize("texts", [[], [""], ["...", "😀"]])
def test_a_vocabulary_needs_speech(texts):
    with pytest.raises(ValueError, match="no speech"):
        DiTARTokenizer.build_vocabulary(texts)
    with pytest.raises(ValueError, match="one string"):
        DiTARTokenizer.build_vocabulary("a string")


def test_unknown_symbols_are_counted_and_reported(english, warnings):
    ids = english("ʘ ʘə ǂ", phonemize=False)["input_ids"]
    assert ids.count(english.unk_token_id) == 3
    assert english.unknown_symbols == {"ʘ": 2, "ǂ": 1}
    assert len(warnings) == 1 and "'ʘ' (U+0298)" in warnings[0] and "'ǂ'" in warnings[0]
    english("ʘ", phonemize=False)
    assert english.unknown_symbols["ʘ"] == 3 and len(warnings) == 1


# Normalisation


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


# Languages


@pytest.mark.parametrize(
    ("language", "text", "phonemes"),
    [
        ("en", "$5.20 is 3%.", "fˈaɪv dˈɑːlɚz twˈɛnti sˈɛnts ɪz θɹˈiː pɚsˈɛnt."),
        ("en", "3.14 and 1st", "θɹˈiː pɔɪnt wˈʌn fˈɔːɹ ænd fˈɜːst"),
        ("zh", "你好，42。", "ni˨˩˦χˈɑu˨˩˦, sˈi̪˥˩ʂɨ˧˥ˌər˥˩."),
        ("de", "Guten Tag! 3,50", "ɡˈuːtən tˈɑːk! dɾˈaɪ kɔmɑː fˈʏnf nˈʊl"),
        ("fr", "Bonjour, l’enfant.", "bɔ̃ʒˈuʁ, lɑ̃fˈɑ̃."),
        ("ja", "こんにちは。", "kˌo̞nnitɕˈihä."),
        ("ko", "안녕하세요.", "ˈɐnnjʌŋhˌɐsejˌo."),
    ],
)
def test_six_languages(tokenizer, language, text, phonemes):
    assert tokenizer.phonemize(text, language) == phonemes


def test_mandarin_tones_are_five(tokenizer):
    words = tokenizer.phonemize("妈 麻 马 骂 吗", "zh").split()
    assert [word[3:] for word in words] == ["˥˥", "˧˥", "˨˩˦", "˥˩", "˩˩"]


def test_words_of_another_language_have_no_tones_and_no_flags(tokenizer):
    assert tokenizer.phonemize("我用Python写", "zh") == "wˈo˨˩˦ jˈonɡ˥˩ pˈaɪθən ɕˈiɛ˨˩˦"
    assert tokenizer.phonemize("le football", "fr") == "lə fˈʊtbɔːl"


def test_every_mandarin_character_has_its_tone(tokenizer, warnings):
    characters = "".join(map(chr, range(0x4E00, 0x5600)))
    phonemes = tokenizer.phonemize("，".join(characters[i : i + 20] for i in range(0, len(characters), 20)), "zh")
    assert not warnings
    assert not set(phonemes) & set("0123456789")


def test_scripts_that_espeak_spells_out_are_reported(tokenizer, warnings):
    tokenizer.phonemize("日本", "ja")
    tokenizer.phonemize("hello", "ja")
    tokenizer.phonemize("ラーメン", "en")
    assert len(warnings) == 2 and "kana" in warnings[0] and "language='ja'" in warnings[1]


def test_aliases_and_default_language(tokenizer, english):
    codes = {"en": "en-us", "EN_us": "en-us", "zh": "cmn", "fr": "fr-fr", " ko": "ko"}
    assert {code: resolve_language(code) for code in codes} == codes
    assert tokenizer.language == "en-us" and tokenizer.languages == list(SENTENCES)
    german = DiTARTokenizer.from_texts({"en": ["hello"], "de": ["hallo"]}, language="de")
    assert (german.languages, german.language) == (["en-us", "de"], "de")
    assert german("hallo") == german("hallo", language="de") != german("hallo", language="en")


@pytest.mark.parametrize("language", ["xx", "de", "english", ""])
def test_a_language_without_vocabulary_is_refused(english, language):
    for call in (english, english.phonemize):
        with pytest.raises(ValueError, match="`language`") as error:
            call("hello", language=language)
        assert repr(language) in str(error.value)
    assert language == "" or "['en-us']" in str(error.value)


def test_a_language_espeak_does_not_know_is_refused():
    with pytest.raises(ValueError, match="espeak-ng does not know.*'cmn'"):
        DiTARTokenizer.build_vocabulary(["hello"], language="xx")
    with pytest.raises(ValueError, match="`languages`"):
        DiTARTokenizer.from_phonemes(["a"], languages=[])


# Bad input


@pytest.mark.parametrize("phonemize", [True, False])
def test_a_lone_surrogate_is_refused(tokenizer, phonemize):
    with pytest.raises(ValueError, match="lone surrogate .U.D83D at position 3"):
        tokenizer("hi \ud83d", phonemize=phonemize)


@pytest.mark.parametrize("text", [None, 5, b"bytes", ["a", None]])
def test_what_is_no_text_is_refused(tokenizer, text):
    with pytest.raises(ValueError, match="`text` must be a string"):
        tokenizer.phonemize(text)


@pytest.mark.parametrize(
    "unit", ["a", "word ", "hello, ", "中", "1", "1,", "a.", "a.b. ", "$5 ", "- ", "é'", "%", ". "]
)
@pytest.mark.parametrize("language", ["en-us", "cmn"])
def test_twenty_thousand_characters(tokenizer, warnings, unit, language):
    # espeak-ng itself crashes on some of these.
    text = unit * (20_000 // len(unit))
    start = time.perf_counter()
    tokenizer(text, language=language)
    assert time.perf_counter() - start < 10


def test_no_text_can_place_a_control_token(tokenizer):
    ids = tokenizer("say <audio_bos> and <audio_patch> or <pad>")["input_ids"]
    assert not set(ids) & {tokenizer.pad_token_id, tokenizer.audio_bos_token_id, tokenizer.audio_patch_token_id}
    assert tokenizer("<audio_bos>", phonemize=False)["input_ids"] == [tokenizer.audio_bos_token_id]


# As a tokenizer of transformers


def test_a_batch_equals_its_rows_and_is_padded_on_the_left(tokenizer):
    sentences = SENTENCES["en-us"]
    batch = tokenizer(sentences, padding=True, return_tensors="pt")
    for sentence, ids, mask in zip(sentences, batch["input_ids"], batch["attention_mask"], strict=True):
        row = tokenizer(sentence)["input_ids"]
        assert ids[len(ids) - len(row) :].tolist() == row
        assert mask.tolist() == [0] * (len(ids) - len(row)) + [1] * len(row)
        assert (ids[: len(ids) - len(row)] == tokenizer.pad_token_id).all()


def test_saved_equals_loaded(english, tmp_path):
    english.add_tokens(["[laugh]"])
    english.add_special_tokens({"extra_special_tokens": ["[start]"]})
    english.save_pretrained(tmp_path)
    AutoTokenizer.register(DiTARConfig, slow_tokenizer_class=DiTARTokenizer, exist_ok=True)
    for loaded in (DiTARTokenizer.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert type(loaded) is DiTARTokenizer
        assert loaded.get_vocab() == english.get_vocab()
        assert (loaded.languages, loaded.language, loaded.do_phonemize) == (["en-us"], "en-us", True)
        assert loaded.padding_side == "left" and loaded.special_tokens_pattern == "none"
        assert loaded.audio_bos_token_id == 2 and loaded.audio_patch_token_id == 3
        text = "Well [laugh], hello. [start] Now."
        assert loaded(text) == english(text)
        loaded.save_pretrained(tmp_path / "again")
        assert (tmp_path / "vocab.json").read_bytes() == (tmp_path / "again" / "vocab.json").read_bytes()
        config, again = (
            json.loads((folder / "tokenizer_config.json").read_text()) for folder in (tmp_path, tmp_path / "again")
        )
        assert config == {key: again[key] for key in config}


def test_arguments_are_saved(tmp_path):
    tokenizer = DiTARTokenizer.from_phonemes(["a", "b"], languages=["de", "fr"], language="fr", do_phonemize=False)
    tokenizer.save_pretrained(tmp_path)
    loaded = DiTARTokenizer.from_pretrained(tmp_path)
    assert (loaded.languages, loaded.language, loaded.do_phonemize) == (["de", "fr-fr"], "fr-fr", False)
    assert loaded("ab")["input_ids"] == tokenizer.convert_tokens_to_ids(["a", "b"])


def test_added_tokens_stay_whole_within_text(english):
    english.add_tokens(["[laugh]"])
    assert english.decode(english("Hi [laugh], you[laugh].")["input_ids"]) == "hˈaɪ [laugh], juː[laugh]."


def test_saving_the_vocabulary_needs_a_folder(english, tmp_path):
    with pytest.raises(ValueError, match="save_directory"):
        english.save_vocabulary(tmp_path / "missing")


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda tokenizer: pickle.loads(pickle.dumps(tokenizer))])
def test_copies_are_equal(tokenizer, duplicate):
    other = duplicate(tokenizer)
    for language, sentence in ROWS:
        assert other(sentence, language=language) == tokenizer(sentence, language=language)


# Backends


def test_the_order_of_texts_does_not_matter(tokenizer):
    expected = {row: tokenizer.phonemize(row[1], row[0]) for row in ROWS}
    shuffled = ROWS * 3
    random.Random(0).shuffle(shuffled)
    assert all(tokenizer.phonemize(row[1], row[0]) == expected[row] for row in shuffled)


def test_threads_equal_serial_and_share_no_backend(tokenizer, monkeypatch):
    expected = [tokenizer.phonemize(sentence, language) for language, sentence in ROWS]
    monkeypatch.setattr(tokenization_ditar, "_BACKENDS", {})
    start = threading.Barrier(4)

    def work(seed):
        order = list(range(len(ROWS))) * 4
        random.Random(seed).shuffle(order)
        start.wait()
        return all(tokenizer.phonemize(ROWS[index][1], ROWS[index][0]) == expected[index] for index in order)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
    for language in SENTENCES:
        backends = list(tokenization_ditar._BACKENDS[language])
        assert 1 <= len(backends) == len(set(map(id, backends))) <= 4


def test_threads_that_end_leave_no_backend_behind(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenization_ditar, "_BACKENDS", {})
    for _ in range(10):
        thread = threading.Thread(target=tokenizer.phonemize, args=("hello",))
        thread.start()
        thread.join()
    assert len(tokenization_ditar._BACKENDS["en-us"]) == 1


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="the platform cannot fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forked_processes_equal_serial(tokenizer):
    sentences = SENTENCES["en-us"] * 4
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(tokenizer.phonemize, sentences) == tokenizer.phonemize(sentences)


def test_phoneme_strings_need_no_phonemizer(english, monkeypatch):
    phonemes = english.phonemize("The lazy dog.")
    monkeypatch.setattr(tokenization_ditar, "EspeakBackend", None)
    monkeypatch.setattr(tokenization_ditar, "_BACKENDS", {})
    assert english.decode(english(phonemes, phonemize=False)["input_ids"]) == phonemes
    with pytest.raises(ImportError, match="pip install phonemizer"):
        english("The lazy dog.")
