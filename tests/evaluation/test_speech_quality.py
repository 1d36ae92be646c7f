"""DNSMOS and UTMOS, where they are installed, and what is said where they are not."""

import sys

import numpy as np
import pytest
import torch

from ditar_hf.evaluation.speech_quality import dnsmos_overall, load_utmos
from ditar_hf.evaluation.summary import NotMeasuredError

NOISE = np.random.default_rng(0).normal(0, 0.5, 24000).astype(np.float32)


def test_noise_is_heard_as_bad():
    assert 0.9 < dnsmos_overall(NOISE, 24000) < 2


def test_without_it_the_remedy_is_named(monkeypatch):
    for name in ("speechmos", "speechmos.dnsmos"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(NotMeasuredError, match=r'speechmos is not installed: pip install -e "\.\[evaluate\]"'):
        dnsmos_overall(NOISE, 24000)


def test_of_next_to_nothing_there_is_no_score():
    with pytest.raises(NotMeasuredError, match="shorter than 0.05 s"):
        dnsmos_overall(NOISE[:0], 24000)


class StandIn:
    """In the place of utmos_pytorch: the mean of the samples, to see what they are."""

    def UTMOSScoreTorch(self, device):
        if device == "cuda":
            raise OSError("no network")
        return self

    def score(self, wavs):
        assert wavs.dtype == torch.float32 and wavs.ndim == 1
        return wavs.abs().mean()[None] * len(wavs)


def test_utmos_hears_a_recording_at_16_khz(monkeypatch):
    monkeypatch.setitem(sys.modules, "utmos_pytorch", StandIn())
    score = load_utmos()
    assert score(np.full(24000, 0.5), 24000) == pytest.approx(8000, rel=1e-2)
    with pytest.raises(NotMeasuredError, match="shorter than 0.05 s"):
        score(NOISE[:100], 24000)


@pytest.mark.parametrize(
    ("module", "device", "reason"), [(None, "cpu", "is not installed"), (StandIn(), "cuda", "no network")]
)
def test_utmos_that_cannot_be_had_is_named(monkeypatch, module, device, reason):
    monkeypatch.setitem(sys.modules, "utmos_pytorch", module)
    with pytest.raises(
        NotMeasuredError, match=rf"UTMOS22 .*predicted naturalness \(UTMOS\), cannot be had: .*{reason}"
    ):
        load_utmos(device)


def test_the_package_s_network_scores(monkeypatch, tmp_path):
    """The true package with random weights, read from a file as it reads them from the Hub."""
    utmos = pytest.importorskip("utmos_pytorch")
    path = tmp_path / "weights.pt"
    torch.save(utmos.utmos_torch.UTMOSModel().state_dict(), path)
    monkeypatch.setattr(utmos.utmos_torch, "download_utmos_ckpt", lambda: path)
    score = load_utmos()
    assert np.isfinite(score(NOISE, 24000)) and score(NOISE, 24000) == score(NOISE, 24000)
