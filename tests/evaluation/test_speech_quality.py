"""DNSMOS, where it is installed, and what is said where it is not."""

import sys

import numpy as np
import pytest

from ditar_hf.evaluation.speech_quality import dnsmos_overall
from ditar_hf.evaluation.summary import NotMeasuredError

NOISE = np.random.default_rng(0).normal(0, 0.5, 24000).astype(np.float32)


def test_noise_is_heard_as_bad():
    assert 0.9 < dnsmos_overall(NOISE, 24000) < 2


def test_without_it_the_remedy_is_named(monkeypatch):
    for name in ("speechmos", "speechmos.dnsmos"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(NotMeasuredError, match=r'speechmos is not installed: pip install "ditar-hf\[evaluate\]"'):
        dnsmos_overall(NOISE, 24000)
