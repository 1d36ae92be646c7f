"""Laws of `DiTARTokenizer`: phoneme strings, round trips, vocabularies, and what it refuses."""

import copy
import json
import pickle
import sys
import unicodedata

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from ditar_hf.modeling import phonemes_ditar, tokenization_ditar
from ditar_hf.modeling.configuration_ditar import DiTARConfig
from ditar_hf.modeling.tokenization_ditar import PUNCTUATION_MARKS, DiTARTokenizer

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
    # a letter before a combining mark may be one that is in no vocabulary
    assume(unicodedata.is_normalized("NFC", phonemes))
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


# Languages


def test_aliases_and_default_language(tokenizer):
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


def test_a_tokenizer_without_languages_is_refused():
    with pytest.raises(ValueError, match="`languages`"):
        DiTARTokenizer.from_phonemes(["a"], languages=[])


@pytest.mark.parametrize("language", [language for language in SENTENCES if language != "en-us"])
def test_a_language_that_is_added_leaves_the_others_as_they_were(english, language):
    before, phones = english.get_vocab(), [token for token in english.get_vocab() if token not in CONTROL_TOKENS]
    pairs = [one + other for one in phones for other in phones]
    tokens = [english.tokenize(pair, phonemize=False) for pair in pairs]
    new = english.add_language(SENTENCES[language], language)
    assert english.languages == ["en-us", language] and english.language == "en-us"
    assert new == list(range(len(before), len(english))) and before.items() <= english.get_vocab().items()
    assert [english.tokenize(pair, phonemize=False) for pair in pairs] == tokens
    for sentence in SENTENCES[language]:
        ids = english(sentence, language=language)["input_ids"]
        assert english.decode(ids) == english.phonemize(sentence, language)
        assert set(ids) & set(new)
    assert not english.unknown_symbols


def test_languages_that_are_added_are_saved(english, tmp_path):
    english.add_tokens(["[laugh]"])
    for language in ("de", "fr"):
        english.add_language(SENTENCES["fr-fr" if language == "fr" else language], language)
    english.add_tokens(["[sigh]"])
    vocabulary = english.get_vocab()
    assert sorted(vocabulary.values()) == list(range(len(english)))
    english.save_pretrained(tmp_path)
    loaded = DiTARTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == vocabulary and loaded.languages == ["en-us", "de", "fr-fr"]
    assert len(loaded) == len(english)
    for language in loaded.languages:
        assert loaded(SENTENCES[language], language=language) == english(SENTENCES[language], language=language)
    assert loaded("Well [laugh] [sigh].") == english("Well [laugh] [sigh].")


def test_phones_of_known_characters_are_not_added(english):
    assert english.add_language(SENTENCES["en-us"], "en") == [] and english.languages == ["en-us"]
    tokenizer = DiTARTokenizer.from_phonemes(["t", "s", "aɪ"])
    new = tokenizer.add_language(["Zeit! Katze!"], "de")
    added = set(tokenizer.convert_ids_to_tokens(new))
    assert "ts" not in added and added.isdisjoint(["t", "s", "aɪ", "a", "ɪ"])
    assert {"k", "ə", "ˈ", "ˈaɪ"} <= added


# Bad input


def test_a_language_is_added_by_its_texts(english):
    vocabulary = english.get_vocab()
    for texts, language, message in (
        (["Hallo"], "", "`language`"),
        (["…"], "de", "no speech"),
        ("Hallo", "de", "one"),
    ):
        with pytest.raises(ValueError, match=message):
            english.add_language(texts, language)
    assert english.get_vocab() == vocabulary and english.languages == ["en-us"]


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
    short, long = (
        tokenizer(unit * (length // len(unit)), language=language)["input_ids"] for length in (2_000, 20_000)
    )
    assert 9 * len(short) <= len(long) <= 11 * len(short)


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


def test_phoneme_strings_need_no_phonemizer(english, monkeypatch):
    phonemes = english.phonemize("The lazy dog.")
    monkeypatch.setitem(sys.modules, "phonemizer.backend", None)
    monkeypatch.setattr(phonemes_ditar, "_BACKENDS", {})
    assert english.decode(english(phonemes, phonemize=False)["input_ids"]) == phonemes
    with pytest.raises(ImportError, match="pip install phonemizer"):
        english("The lazy dog.")


def test_a_folder_without_its_vocabulary_is_refused(english, tmp_path):
    english.save_pretrained(tmp_path)
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(ValueError, match="vocab.json"):
        DiTARTokenizer.from_pretrained(tmp_path)


def test_control_tokens_of_other_names_are_added(tmp_path):
    tokenizer = DiTARTokenizer.from_texts(["The fox."], pad_token="[PAD]", audio_bos_token="<start>")
    tokenizer.save_pretrained(tmp_path)
    loaded = DiTARTokenizer.from_pretrained(tmp_path)
    for one in (tokenizer, loaded):
        assert one.convert_ids_to_tokens([one.pad_token_id, one.audio_bos_token_id]) == ["[PAD]", "<start>"]
    assert loaded("The fox.")["input_ids"] == tokenizer("The fox.")["input_ids"]


def test_ids_that_are_left_out_stay_so(tmp_path):
    DiTARTokenizer.from_texts(["The fox."]).save_pretrained(tmp_path)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps({**vocabulary, "zz": len(vocabulary) + 1}))
    tokenizer = DiTARTokenizer.from_pretrained(tmp_path)
    assert min(tokenizer.add_language(["Schöne Grüße!"], "de")) == len(vocabulary) + 2
    tokenizer.save_pretrained(tmp_path)
    assert DiTARTokenizer.from_pretrained(tmp_path).get_vocab() == tokenizer.get_vocab()


def test_a_vocabulary_alone_is_loaded(tmp_path):
    tokenizer = DiTARTokenizer.from_texts(["The fox."])
    (file,) = tokenizer.save_vocabulary(tmp_path)
    assert DiTARTokenizer.from_pretrained(file).get_vocab() == tokenizer.get_vocab()
