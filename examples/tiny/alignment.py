"""Which phoneme token does each patch speak? From timed ARPABET phones (of a synthesiser or a forced aligner)."""

import re

import numpy as np
import soxr

from ditar_hf.modeling.phonemes_ditar import text_to_phones

# what espeak-ng's en-us phones begin with, for each ARPABET phone, most usual first
ARPABET = {
    "aa": "ɑ ɒ ɔ o", "ae": "æ a", "ah": "ʌ ə ɐ", "ao": "ɔ ɑ o", "aw": "aʊ", "ax": "ə ɐ ɪ ᵻ ʌ", "ay": "aɪ",
    "b": "b", "ch": "tʃ", "d": "d ɾ", "dh": "ð", "dx": "ɾ t d", "eh": "ɛ e", "er": "ɚ ɜ", "ey": "eɪ e",
    "f": "f", "g": "ɡ", "hh": "h", "ih": "ɪ ᵻ i", "iy": "i", "jh": "dʒ", "k": "k", "l": "l", "m": "m", "n": "n",
    "ng": "ŋ n", "ow": "oʊ o", "oy": "ɔɪ", "p": "p", "r": "ɹ", "s": "s", "sh": "ʃ", "t": "t ɾ ʔ", "th": "θ",
    "uh": "ʊ", "uw": "u", "v": "v", "w": "w", "y": "j", "z": "z s", "zh": "ʒ",
}  # fmt: skip
COMPOUNDS = {
    "oːɹ": ["ao", "r"], "ɔːɹ": ["ao", "r"], "ɑːɹ": ["aa", "r"], "ɪɹ": ["ih", "r"], "ɛɹ": ["eh", "r"],
    "ʊɹ": ["uh", "r"], "əl": ["ah", "l"], "iə": ["iy", "ah"],
}  # fmt: skip
VOWELS = "aeiouæɑɒɔəɐɛɜɚɪᵻʊʌ"
GAP = 1.0


def arpabet(symbol: str) -> list[str]:
    """The phones of pocketsphinx's dictionary for one phone of espeak-ng, none for one that English does not have."""
    symbol = symbol.lstrip("ˈˌ")
    if symbol in COMPOUNDS:
        return COMPOUNDS[symbol]
    candidates = [
        (len(start), -rank, phone)
        for phone, starts in ARPABET.items()
        for rank, start in enumerate(starts.split())
        if phone not in ("ax", "dx") and symbol.startswith(start)  # those two are flite's alone
    ]
    return [max(candidates)[2]] if candidates else []


def substitution_cost(phone: str, token: str) -> float:
    """0 for the same sound, 0.6 for two vowels, 1.2 for two consonants, 3 for one of each."""
    token = token.lstrip("ˈˌ")
    if any(token.startswith(symbol) for symbol in ARPABET.get(phone, "").split()):
        return 0.0
    is_vowel = ARPABET.get(phone, " ")[0] in VOWELS, token[:1] in VOWELS
    return (1.2, 0.6)[is_vowel[0]] if is_vowel[0] == is_vowel[1] else 3.0


def match_phones(phones: list[str], tokens: list[str]) -> tuple[list[int], float]:
    """
    Token index of each phone by dynamic programming; a phone between tokens belongs to the one before.

    Returns:
        The indices, never falling, and the cost a phone; above about 0.5 text and speech do not agree.
    """
    spoken = [i for i, token in enumerate(tokens) if re.search(r"\w", token)]
    cost = np.zeros((len(phones) + 1, len(spoken) + 1))
    cost[:, 0], cost[0] = GAP * np.arange(len(phones) + 1), GAP * np.arange(len(spoken) + 1)
    pairs = np.array([[substitution_cost(phone, tokens[i]) for i in spoken] for phone in phones])
    for p in range(1, len(phones) + 1):
        for t in range(1, len(spoken) + 1):
            cost[p, t] = min(cost[p - 1, t - 1] + pairs[p - 1, t - 1], cost[p - 1, t] + GAP, cost[p, t - 1] + GAP)
    matched, p, t = [0] * len(phones), len(phones), len(spoken)
    while p:
        if t and cost[p, t] == cost[p - 1, t - 1] + pairs[p - 1, t - 1]:
            p, t = p - 1, t - 1
            matched[p] = spoken[t]
        elif t and cost[p, t] == cost[p, t - 1] + GAP:
            t -= 1
        else:
            p -= 1
            matched[p] = spoken[max(t - 1, 0)]
    return matched, float(cost[-1, -1]) / max(1, len(phones))


def spoken_tokens(
    phones: list[tuple[str, float, float]],
    tokens: list[str],
    num_patches: int,
    patch_seconds: float,
    max_cost: float = 0.6,
) -> list[int]:
    """Index of the token spoken in the middle of each patch; −100 everywhere if speech and text do not agree."""
    if not phones:
        return [-100] * num_patches
    matched, cost = match_phones([name for name, _, _ in phones], tokens)
    if cost > max_cost:
        return [-100] * num_patches
    starts = np.array([start for _, start, _ in phones])
    middles = (np.arange(num_patches) + 0.5) * patch_seconds
    nearest = np.clip(np.searchsorted(starts, middles, side="right") - 1, 0, None)
    spoken = [matched[i] for i in nearest]
    # silence after the last phone is the end of the text
    return [
        len(tokens) - 1 if middle > phones[-1][2] else token for middle, token in zip(middles, spoken, strict=True)
    ]


class ForcedAligner:
    """Timed words and phones of recorded speech by pocketsphinx's own acoustic model."""

    rate = 16000

    def __init__(self):
        from pocketsphinx import Decoder

        # what ends outside its last phone with one beam mostly does not with another
        self.decoders = [
            Decoder(samprate=self.rate, loglevel="FATAL", beam=beam, pbeam=beam) for beam in (1e-48, 1e-20, 1e-15)
        ]

    def knows(self, word: str) -> bool:
        """Whether a word can be followed; one outside the dictionary is taught as espeak-ng says it, if it does."""
        if self.decoders[0].lookup_word(word) is not None:
            return True
        phones = [phone for symbol in text_to_phones(word, "en-us") for phone in arpabet(symbol)]
        for decoder in self.decoders if phones else []:
            decoder.add_word(word, " ".join(phones).upper(), True)
        return bool(phones)

    def __call__(self, audio: np.ndarray, rate: int, text: str) -> list[dict] | None:
        """
        Words with `start` and `end` in seconds, `phones` (name, start, end) and the `span` of characters in the text.

        `None` where the speech does not follow the text.
        """
        found = list(re.finditer(r"[a-z']*[a-z][a-z']*", text.lower()))
        names = [match[0] for match in found]
        if not names or not all(map(self.knows, names)):
            return None
        audio = soxr.resample(audio, rate, self.rate)
        audio = audio / max(1e-3, np.abs(audio).max()) * 0.7
        samples = (audio * 32767).astype(np.int16).tobytes()
        for decoder in self.decoders:
            timed = self._follow(decoder, samples, names)
            if timed is not None:
                return [{**word, "span": match.span()} for word, match in zip(timed, found, strict=True)]
        return None

    def _follow(self, decoder, samples: bytes, names: list[str]) -> list[dict] | None:
        try:
            decoder.set_align_text(" ".join(names))
            self._decode(decoder, samples)
            decoder.set_alignment()
            self._decode(decoder, samples)
            alignment = decoder.get_alignment()
        except RuntimeError:  # no path through the speech
            return None
        seconds, timed = 1 / decoder.config["frate"], []
        for word in alignment:
            if re.sub(r"\(\d+\)", "", word.name) in names:  # the others are silences and noises
                phones = [(p.name.lower(), p.start * seconds, (p.start + p.duration) * seconds) for p in word]
                timed.append({"start": phones[0][1], "end": phones[-1][2], "phones": phones})
        return timed if len(timed) == len(names) else None

    @staticmethod
    def _decode(decoder, samples: bytes):
        decoder.start_utt()
        decoder.process_raw(samples, full_utt=True)
        decoder.end_utt()
