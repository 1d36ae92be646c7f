"""Laws of the phones that espeak-ng gives: languages, long texts, threads and processes."""

import multiprocessing
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ditar_hf.modeling import phonemes_ditar
from ditar_hf.modeling.phonemes_ditar import join_phones, resolve_language, text_to_phones

SENTENCES = {
    "en-us": ["The quick brown fox jumps over the lazy dog.", "Dr. Watson paid $5.20 (42%) at 12:30; was it a joke?"],
    "cmn": ["妈麻马骂吗，你好世界。", "我用Python写了3.5个程序！"],
    "de": ["Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.", "Ich heiße Müller – und Sie?"],
    "fr-fr": ["Portez ce bon vieux whisky au juge blond qui fume.", "« Ça va ? » L’homme, aujourd’hui : 3,50 €."],
    "ja": ["いろはにほへと、ちりぬるを。", "ラーメン が すき です！"],
    "ko": ["안녕하세요, 만나서 반갑습니다.", "까치가 학교에서 공부해요?"],
}
ROWS = [(sentence, language) for language, sentences in SENTENCES.items() for sentence in sentences]


def phonemize(text: str, language: str = "en") -> str:
    return join_phones(text_to_phones(text, resolve_language(language)))


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr(phonemes_ditar.logger, "warning_once", messages.append)
    return messages


def test_phones_are_in_order_with_spaces_and_marks():
    phones = ["ð", "ə", " ", "f", "ˈɑː", "k", "s", ",", " ", "j", "ˈɛ", "s", "?"]
    assert text_to_phones("The fox, yes?", "en-us") == phones
    assert text_to_phones(", yes", "en-us") == ["j", "ˈɛ", "s"]
    assert text_to_phones(", yes", "en-us", after_token=True) == [",", " ", "j", "ˈɛ", "s"]


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
def test_six_languages(language, text, phonemes):
    assert phonemize(text, language) == phonemes


def test_mandarin_tones_are_five():
    words = phonemize("妈 麻 马 骂 吗", "zh").split()
    assert [word[3:] for word in words] == ["˥˥", "˧˥", "˨˩˦", "˥˩", "˩˩"]


def test_words_of_another_language_have_no_tones_and_no_flags():
    assert phonemize("我用Python写", "zh") == "wˈo˨˩˦ jˈonɡ˥˩ pˈaɪθən ɕˈiɛ˨˩˦"
    assert phonemize("le football", "fr") == "lə fˈʊtbɔːl"


def test_every_mandarin_character_has_its_tone(warnings):
    characters = "".join(map(chr, range(0x4E00, 0x5600)))
    phonemes = phonemize("，".join(characters[i : i + 20] for i in range(0, len(characters), 20)), "zh")
    assert not warnings
    assert not set(phonemes) & set("0123456789")


def test_scripts_that_espeak_spells_out_are_reported(warnings):
    phonemize("日本", "ja")
    phonemize("hello", "ja")
    phonemize("ラーメン", "en")
    assert len(warnings) == 2 and "kana" in warnings[0] and "language='ja'" in warnings[1]


def test_aliases():
    codes = {"en": "en-us", "EN_us": "en-us", "zh": "cmn", "fr": "fr-fr", " ko": "ko"}
    assert {code: resolve_language(code) for code in codes} == codes


@pytest.mark.parametrize("language", ["", " ", None, 5])
def test_what_is_no_language_is_refused(language):
    with pytest.raises(ValueError, match="`language` must be a language code"):
        resolve_language(language)


def test_a_language_espeak_does_not_know_is_refused():
    with pytest.raises(ValueError, match="espeak-ng does not know.*'cmn'"):
        phonemize("hello", "xx")


# Backends


def test_the_order_of_texts_does_not_matter():
    expected = {row: phonemize(*row) for row in ROWS}
    shuffled = ROWS * 3
    random.Random(0).shuffle(shuffled)
    assert all(phonemize(*row) == expected[row] for row in shuffled)


def test_threads_equal_serial_and_share_no_backend(monkeypatch):
    expected = [phonemize(*row) for row in ROWS]
    monkeypatch.setattr(phonemes_ditar, "_BACKENDS", {})
    start = threading.Barrier(4)

    def work(seed):
        order = list(range(len(ROWS))) * 4
        random.Random(seed).shuffle(order)
        start.wait()
        return all(phonemize(*ROWS[index]) == expected[index] for index in order)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
    for language in SENTENCES:
        backends = list(phonemes_ditar._BACKENDS[language])
        assert 1 <= len(backends) == len(set(map(id, backends))) <= 4


def test_threads_that_end_leave_no_backend_behind(monkeypatch):
    monkeypatch.setattr(phonemes_ditar, "_BACKENDS", {})
    for _ in range(10):
        thread = threading.Thread(target=phonemize, args=("hello",))
        thread.start()
        thread.join()
    assert len(phonemes_ditar._BACKENDS["en-us"]) == 1


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="the platform cannot fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forked_processes_equal_serial():
    rows = ROWS * 4
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.starmap(text_to_phones, rows) == [text_to_phones(*row) for row in rows]


def test_without_phonemizer_text_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "phonemizer.backend", None)
    monkeypatch.setattr(phonemes_ditar, "_BACKENDS", {})
    assert phonemize("...") == ""
    with pytest.raises(ImportError, match="pip install phonemizer"):
        phonemize("The lazy dog.")
