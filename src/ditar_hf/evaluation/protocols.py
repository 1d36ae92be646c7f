"""Protocols of word error: which recogniser listens, what is compared, and how utterances become one number."""

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from .summary import PAPERS_EXTRA, require_package
from .word_error import ErrorCounts, align_words, split_words

# what the public scripts strip: `zhon.hanzi.punctuation` of zhon 2.1.1, written out, for a protocol must not change
# when a package does
HANZI_PUNCTUATION = (
    "＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､\u3000、〃〈〉《》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟"
    "〰〾〿–—‘’‛“”„‟…‧﹏﹑﹔·．！？｡。"
)
_NO_PUNCTUATION = str.maketrans("", "", HANZI_PUNCTUATION + string.punctuation)
_NO_PUNCTUATION_BUT_APOSTROPHES = {code: None for code in _NO_PUNCTUATION if chr(code) != "'"}


@dataclass(frozen=True, kw_only=True)
class WordErrorProtocol:
    """
    One way of measuring word error. Numbers of two protocols cannot be compared.

    Args:
        name (`str`): What results call it.
        recognizer (`str`): The recogniser that listens, a name of `RECOGNIZERS`.
        language (`str`): ISO 639-1 code of what is spoken.
        unit (`str`): What is counted: `"words"`, between spaces, or `"characters"`, without spaces.
        average (`str`):
            `"utterance"`: the mean of the rates of the utterances; `"corpus"`: all errors per all units.
        normalize (`Callable`): What is done to texts and transcripts before they are compared.
        about (`str`): Where the protocol comes from, in one line.
        convert_transcript (`Callable`, *optional*): What is done to transcripts alone, before they are normalised.
    """

    name: str
    recognizer: str
    language: str
    unit: Literal["words", "characters"]
    average: Literal["utterance", "corpus"]
    normalize: Callable[[str], str]
    about: str
    convert_transcript: Callable[[str], str] | None = None

    def split(self, text: str) -> list[str]:
        """
        The units of a text as they are compared.

        Args:
            text (`str`): A text, or a transcript that was converted.

        Returns:
            `list[str]`: Words or characters, none of them empty or a space.
        """
        words = self.normalize(text).split()
        return words if self.unit == "words" else list("".join(words))

    def count(self, text: str, transcript: str) -> ErrorCounts:
        """
        What was heard wrongly in one utterance; of an empty transcript, everything is missing.

        Args:
            text (`str`): What should have been said.
            transcript (`str`): What the recogniser heard, as it writes it.

        Returns:
            [`ErrorCounts`].

        Raises:
            ValueError: If nothing of the text can be compared.
            NotMeasuredError: If a package is not installed.
        """
        units = self.split(text)
        if not units:
            raise ValueError(f"`text` {text!r} has no {self.unit} in protocol {self.name}: leave the utterance out.")
        if self.convert_transcript is not None:
            transcript = self.convert_transcript(transcript)
        return align_words(units, self.split(transcript))

    def weights(self, counts: Sequence[ErrorCounts]) -> list[int]:
        """
        Weights with which the mean of the utterances' rates is the rate of the protocol.

        Args:
            counts (`list[ErrorCounts]`): One for each utterance.

        Returns:
            `list[int]` of the same length.
        """
        return [count.units if self.average == "corpus" else 1 for count in counts]

    def rate(self, counts: Sequence[ErrorCounts]) -> float:
        """
        The word error of a set.

        Args:
            counts (`list[ErrorCounts]`): One for each utterance.

        Returns:
            Errors per unit, averaged as the protocol says; 0.02 is 2%.

        Raises:
            ValueError: If there is no utterance.
        """
        if not counts:
            raise ValueError("`counts` must not be empty: there is no word error of no utterance.")
        weights = self.weights(counts)
        weighted = sum(weight * count.rate for weight, count in zip(weights, counts, strict=True))
        return weighted / sum(weights)


def find_protocol(name: str) -> WordErrorProtocol:
    """
    A protocol by its name.

    Args:
        name (`str`): One of `WORD_ERROR_PROTOCOLS`.

    Returns:
        [`WordErrorProtocol`].

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in WORD_ERROR_PROTOCOLS:
        raise ValueError(f"`protocol` {name!r} is not known. Name one of {', '.join(WORD_ERROR_PROTOCOLS)}.")
    return WORD_ERROR_PROTOCOLS[name]


def _seed_english(text: str) -> str:
    return text.translate(_NO_PUNCTUATION_BUT_APOSTROPHES).lower()


def _seed_mandarin(text: str) -> str:
    # Latin letters keep their case: the public script does not touch it
    return text.translate(_NO_PUNCTUATION_BUT_APOSTROPHES)


def _simplified(transcript: str) -> str:
    return require_package("zhconv", PAPERS_EXTRA).convert(transcript, "zh-cn")


def _librispeech_pc(text: str) -> str:
    return text.translate(_NO_PUNCTUATION).lower()


def _librispeech_a(text: str) -> str:
    text = text.replace("‘", "'").replace("’", "'").lower()
    return re.sub(r"[^a-z0-9']", " ", text)


def _offline_english(text: str) -> str:
    return " ".join(split_words(text))


WORD_ERROR_PROTOCOLS: dict[str, WordErrorProtocol] = {
    protocol.name: protocol
    for protocol in (
        WordErrorProtocol(
            name="seed-en",
            recognizer="whisper-large-v3",
            language="en",
            unit="words",
            average="utterance",
            normalize=_seed_english,
            about="BytedanceSpeech/seed-tts-eval, run_wer.py: no punctuation but ', lower case; mean of utterances",
        ),
        WordErrorProtocol(
            name="seed-zh",
            recognizer="paraformer-zh",
            language="zh",
            unit="characters",
            average="utterance",
            normalize=_seed_mandarin,
            convert_transcript=_simplified,
            about="BytedanceSpeech/seed-tts-eval, run_wer.py: no punctuation but ', transcripts simplified by zhconv; "
            "mean of utterances",
        ),
        WordErrorProtocol(
            name="librispeech-pc",
            recognizer="faster-whisper-large-v3",
            language="en",
            unit="words",
            average="corpus",
            normalize=_librispeech_pc,
            about="SWivid/F5-TTS, utils_eval.py: no punctuation, no ', lower case; errors of the corpus, where that "
            "script takes the mean of utterances",
        ),
        WordErrorProtocol(
            name="librispeech-a",
            recognizer="hubert-large-ls960-ft",
            language="en",
            unit="words",
            average="corpus",
            normalize=_librispeech_a,
            about="of NaturalSpeech 3 no script is known to us: as in k2-fsa/ZipVoice, hubert.py: letters, "
            "digits and ', lower case; errors of the corpus",
        ),
        WordErrorProtocol(
            name="offline-en",
            recognizer="pocketsphinx",
            language="en",
            unit="words",
            average="corpus",
            normalize=_offline_english,
            about="ours, for machines without a network: a weak recogniser, so that only large differences say much",
        ),
    )
}
