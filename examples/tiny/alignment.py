"""Which phoneme token does each patch speak? From timed ARPABET phones (of a synthesiser or a forced aligner)."""

import re

import numpy as np
import soxr

# what espeak-ng's en-us phones begin with, for each ARPABET phone, most usual first
ARPABET = {
    "aa": "ɑ ɒ ɔ o", "ae": "æ a", "ah": "ʌ ə ɐ", "ao": "ɔ ɑ o", "aw": "aʊ", "ax": "ə ɐ ɪ ᵻ ʌ", "ay": "aɪ",
    "b": "b", "ch": "tʃ", "d": "d ɾ", "dh": "ð", "dx": "ɾ t d", "eh": "ɛ e", "er": "ɚ ɜ", "ey": "eɪ e",
    "f": "f", "g": "ɡ", "hh": "h", "ih": "ɪ ᵻ i", "iy": "i", "jh": "dʒ", "k": "k", "l": "l", "m": "m", "n": "n",
    "ng": "ŋ n", "ow": "oʊ o", "oy": "ɔɪ", "p": "p", "r": "ɹ", "s": "s", "sh": "ʃ", "t": "t ɾ ʔ", "th": "θ",
    "uh": "ʊ", "uw": "u", "v": "v", "w": "w", "y": "j", "z": "z s", "zh": "ʒ",
}  # fmt: skip
VOWELS = "aeiouæɑɒɔəɐɛɜɚɪᵻʊʌ"
GAP = 1.0


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
    """Timed phones of recorded speech by pocketsphinx's own acoustic model; `None` where a word is unknown to it."""

    rate = 16000

    def __init__(self):
        from pocketsphinx import Decoder

        self.decoder = Decoder(samprate=self.rate, loglevel="FATAL", beam=1e-80, pbeam=1e-80, wbeam=1e-60)

    def __call__(self, audio: np.ndarray, rate: int, text: str) -> list[tuple[str, float, float]] | None:
        words = re.sub(r"[^a-z' ]", " ", text.lower().replace("-", " ")).split()
        if not words or any(self.decoder.lookup_word(word) is None for word in words):
            return None
        audio = soxr.resample(audio, rate, self.rate)
        audio = audio / max(1e-3, np.abs(audio).max()) * 0.7
        samples = (audio * 32767).astype(np.int16).tobytes()
        try:
            self.decoder.set_align_text(" ".join(words))
            self._decode(samples)
            self.decoder.set_alignment()
            self._decode(samples)
            alignment = self.decoder.get_alignment()
        except RuntimeError:  # no path through the speech: the text is not what is said
            return None
        frames = 1 / self.decoder.config["frate"]
        phones = [(p.name.lower(), p.start * frames, (p.start + p.duration) * frames) for p in alignment.phones()]
        return [phone for phone in phones if phone[0] not in ("sil", "+spn+", "+nsn+")]

    def _decode(self, samples: bytes):
        self.decoder.start_utt()
        self.decoder.process_raw(samples, full_utt=True)
        self.decoder.end_utt()
