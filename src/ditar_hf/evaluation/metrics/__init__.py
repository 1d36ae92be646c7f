"""The metrics as modules of Hugging Face's evaluate; `evaluate.load` takes the paths of the files here as well."""

from .dnsmos import DNSMOS
from .speaker_similarity import SpeakerSimilarity
from .utmos import UTMOS
from .word_error import WordError

__all__ = ["DNSMOS", "SpeakerSimilarity", "UTMOS", "WordError"]
