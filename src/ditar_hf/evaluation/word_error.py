"""Words of a text, and how many of them were heard wrongly."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from .summary import require_package


@dataclass(frozen=True)
class ErrorCounts:
    """
    The least number of edits that make what was heard of what should have been heard, for one utterance.

    Args:
        substitutions (`int`): Units that were heard as others.
        deletions (`int`): Units that were not heard.
        insertions (`int`): Units that were heard and not said.
        units (`int`): Words or characters that should have been heard.
    """

    substitutions: int
    deletions: int
    insertions: int
    units: int

    @property
    def errors(self) -> int:
        """All edits together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per unit; more than 1 where much was inserted. There must be a unit."""
        return self.errors / self.units


def split_words(text: str) -> list[str]:
    """
    Words as they are compared: lower case, without punctuation and symbols; apostrophes inside words stay.

    Languages that are written without spaces become one long word: word error says little about them.

    Args:
        text (`str`): A text or a transcript.

    Returns:
        `list[str]`.
    """
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    # letters, marks and numbers
    kept = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return [word for word in (word.strip("'") for word in kept.split()) if word]


def align_words(reference: Sequence[str], hypothesis: Sequence[str]) -> ErrorCounts:
    """
    The edits between two sequences, by jiwer.

    Args:
        reference (`list[str]`): Words or characters that should have been heard, none with a space; may be empty.
        hypothesis (`list[str]`): Those that were heard; may be empty.

    Returns:
        [`ErrorCounts`].

    Raises:
        NotMeasuredError: If jiwer is not installed.
    """
    jiwer = require_package("jiwer")
    if not reference:
        return ErrorCounts(0, 0, len(hypothesis), 0)
    output = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    return ErrorCounts(output.substitutions, output.deletions, output.insertions, len(reference))


def count_word_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """
    The least number of substitutions, deletions and insertions that make one of the other.

    Args:
        reference (`list[str]`): As for [`align_words`].
        hypothesis (`list[str]`): As for [`align_words`].

    Returns:
        Their number.

    Raises:
        NotMeasuredError: If jiwer is not installed.
    """
    return align_words(reference, hypothesis).errors
