"""What is measured of a speech tokenizer: a clip and its reconstruction, and the quantities that compare them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .pitch import PitchErrors, compare_pitch, f0_rmse_cents, track_pitch
from .reconstruction_metrics import level_difference, peak_difference, si_sdr
from .speech_quality import dnsmos_overall
from .summary import NotMeasuredError, unavailable
from .word_error import count_word_errors, split_words


@dataclass
class Clip:
    """
    A recording to be reconstructed.

    Args:
        id (`str`): Names it in reports.
        waveform (`np.ndarray` of shape `(num_samples,)`): Float32 samples at the tokenizer's sampling rate.
        bandwidth (`float`, *optional*):
            Highest frequency in Hz that the recording can hold, if it was sampled at a lower rate: only what lies
            below it is compared.
        text (`str`, *optional*): What is said.
        is_cut (`bool`, *optional*, defaults to `False`): Whether it is the beginning of a longer recording.
    """

    id: str
    waveform: np.ndarray
    bandwidth: float | None = None
    text: str | None = None
    is_cut: bool = False


@dataclass
class UnusableClip:
    """A recording that could not be read, and why."""

    id: str
    reason: str


@dataclass
class Comparison:
    """
    A clip beside its reconstruction. What takes long is computed once, when a metric first asks for it.

    Args:
        clip ([`Clip`]): The original.
        reconstruction (`np.ndarray` of shape `(num_samples,)`): What the tokenizer made of it.
        original_band, reconstruction_band (`np.ndarray` of shape `(num_samples,)`):
            Both below the bandwidth of the clip; all metrics compare these.
        sampling_rate (`int`): Samples a second.
        mel_distance, stft_distance (`float`): The parts of the library's reconstruction loss; see `METRICS` for units.
        kl_bits_per_second (`float`): Rate of the posterior.
        decode_real_time_factor (`float`): Seconds of computation for a second of speech.
        recognize (`Callable`): From samples and their rate to a transcript, such as of `load_recognizer`.
    """

    clip: Clip
    reconstruction: np.ndarray
    original_band: np.ndarray
    reconstruction_band: np.ndarray
    sampling_rate: int
    mel_distance: float
    stft_distance: float
    kl_bits_per_second: float
    decode_real_time_factor: float
    recognize: Callable[[np.ndarray, int], str] = field(default=unavailable("there is no recogniser"), repr=False)

    @property
    def seconds(self) -> float:
        """Length of the clip in seconds."""
        return len(self.original_band) / self.sampling_rate

    @cached_property
    def pitch_errors(self) -> PitchErrors:
        """Errors of pitch and voicing."""
        ours, theirs = (track_pitch(x, self.sampling_rate) for x in (self.reconstruction_band, self.original_band))
        return compare_pitch(ours, theirs)

    @cached_property
    def words(self) -> list[str]:
        """The words of the text; raises [`NotMeasuredError`] where there are none."""
        if self.clip.is_cut:
            raise NotMeasuredError("the clip is only the beginning of what its text says")
        words = split_words(self.clip.text or "")
        if not words:
            raise NotMeasuredError("the clip has no text")
        return words

    @cached_property
    def words_in_original(self) -> list[str]:
        """What the recogniser hears in the original."""
        return split_words(self.recognize(self.original_band, self.sampling_rate))

    @cached_property
    def words_in_reconstruction(self) -> list[str]:
        """What the recogniser hears in the reconstruction."""
        return split_words(self.recognize(self.reconstruction_band, self.sampling_rate))


def _word_error(reference: list[str], hypothesis: list[str]) -> float:
    if not reference:
        raise NotMeasuredError("the recogniser hears no word in the original")
    return count_word_errors(reference, hypothesis) / len(reference)


@dataclass(frozen=True)
class Metric:
    """
    A quantity of a [`Comparison`].

    Args:
        unit (`str`): Its unit.
        better (`str`): `"lower"`, `"higher"` or `"near 0"`; of the originals `"a bound"`: what may be hoped for.
        about (`str`): What it is, in one line.
        measure (`Callable`): From a [`Comparison`] to the value; raises [`NotMeasuredError`].
        weight (`Callable`, *optional*):
            From a [`Comparison`] to the weight of its clip in the mean, where clips do not count alike.
    """

    unit: str
    better: str
    about: str
    measure: Callable[[Comparison], float]
    weight: Callable[[Comparison], float] = lambda comparison: 1.0


METRICS = {
    "mel_distance": Metric(
        "nats",
        "lower",
        "L1 distance of log-mel spectrograms, mean over four resolutions",
        lambda comparison: comparison.mel_distance,
    ),
    "stft_distance": Metric(
        "1",
        "lower",
        "spectral convergence plus L1 distance of log magnitudes, mean over four resolutions",
        lambda comparison: comparison.stft_distance,
    ),
    "f0_rmse": Metric(
        "cents",
        "lower",
        "root mean square error of pitch over the frames that are voiced in both; an octave is 1200",
        lambda comparison: f0_rmse_cents(comparison.pitch_errors),
    ),
    "voicing_error": Metric(
        "share",
        "lower",
        "frames that are voiced in one and not in the other",
        lambda comparison: comparison.pitch_errors.voicing_error,
    ),
    "si_sdr": Metric(
        "dB",
        "higher",
        "scale-invariant signal-to-distortion ratio; it compares phases, which need not be kept to sound alike",
        lambda comparison: si_sdr(comparison.reconstruction_band, comparison.original_band),
    ),
    "level_difference": Metric(
        "dB",
        "near 0",
        "root mean square of the reconstruction over that of the original",
        lambda comparison: level_difference(comparison.reconstruction_band, comparison.original_band),
    ),
    "peak_difference": Metric(
        "dB",
        "near 0",
        "largest magnitude of the reconstruction over that of the original",
        lambda comparison: peak_difference(comparison.reconstruction_band, comparison.original_band),
    ),
    "kl_rate": Metric(
        "bit/s",
        "lower",
        "divergence of the posterior of the raw latents from the standard normal",
        lambda comparison: comparison.kl_bits_per_second,
    ),
    "word_error_original": Metric(
        "share",
        "a bound",
        "word errors in the originals against the text: the recogniser's own",
        lambda comparison: _word_error(comparison.words, comparison.words_in_original),
        lambda comparison: len(comparison.words),
    ),
    "word_error_reconstruction": Metric(
        "share",
        "lower",
        "word errors in the reconstructions against the text",
        lambda comparison: _word_error(comparison.words, comparison.words_in_reconstruction),
        lambda comparison: len(comparison.words),
    ),
    "word_error_between": Metric(
        "share",
        "lower",
        "word errors in the reconstructions against what is heard in the originals",
        lambda comparison: _word_error(comparison.words_in_original, comparison.words_in_reconstruction),
        lambda comparison: len(comparison.words_in_original),
    ),
    "dnsmos_original": Metric(
        "MOS, 1 to 5",
        "a bound",
        "overall quality of the originals as DNSMOS P.835 predicts it",
        lambda comparison: dnsmos_overall(comparison.original_band, comparison.sampling_rate),
    ),
    "dnsmos_reconstruction": Metric(
        "MOS, 1 to 5",
        "higher",
        "overall quality of the reconstructions as DNSMOS P.835 predicts it",
        lambda comparison: dnsmos_overall(comparison.reconstruction_band, comparison.sampling_rate),
    ),
    "decode_real_time_factor": Metric(
        "s/s",
        "lower",
        "seconds of computation of `decode` for a second of speech, one clip at a time",
        lambda comparison: comparison.decode_real_time_factor,
        lambda comparison: comparison.seconds,
    ),
}
