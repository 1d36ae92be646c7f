"""Embeddings of voices: by folder, by name, and those that cannot be had."""

import hashlib
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector, WavLMModel

from ditar_hf.evaluation import speaker_encoders, speaker_network
from ditar_hf.evaluation.speaker_encoders import SPEAKER_ENCODERS, load_speaker_encoder
from ditar_hf.evaluation.speaker_network import WavLMSpeakerEncoder
from ditar_hf.evaluation.summary import NotMeasuredError

RATE = 24000
NOISE = np.random.default_rng(0).normal(0, 0.05, RATE).astype(np.float32)
TINY = WavLMConfig(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    conv_dim=(8, 8),
    conv_stride=(20, 16),
    conv_kernel=(20, 16),
    num_conv_pos_embeddings=4,
    num_conv_pos_embedding_groups=2,
    feat_extract_norm="layer",
    do_stable_layer_norm=True,
    tdnn_dim=(16, 16),
    tdnn_kernel=(3, 1),
    tdnn_dilation=(1, 1),
    xvector_output_dim=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    WavLMForXVector(TINY).save_pretrained(path)
    Wav2Vec2FeatureExtractor(sampling_rate=16000).save_pretrained(path)
    return path


def test_a_folder_of_a_model_is_an_encoder(folder):
    embed = load_speaker_encoder(str(folder))
    embedding = embed(NOISE, RATE)
    assert embedding.shape == (8,) and np.linalg.norm(embedding) == pytest.approx(1)
    np.testing.assert_array_equal(embedding, embed(NOISE, RATE))
    # the feature extractor normalises loudness
    np.testing.assert_allclose(embedding, embed(NOISE * 3, RATE), atol=1e-4)


@pytest.mark.parametrize(("waveform", "reason"), [(NOISE[:100], "shorter than"), (0 * NOISE, "is silent")])
def test_where_there_is_nothing_to_hear_nothing_is_measured(folder, waveform, reason):
    with pytest.raises(NotMeasuredError, match=reason):
        load_speaker_encoder(str(folder))(waveform, RATE)


def test_a_model_without_a_speaker_head_is_refused(tmp_path):
    WavLMModel(TINY).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(sampling_rate=16000).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="cannot be loaded .it has no "):
        load_speaker_encoder(str(tmp_path))


def test_another_rate_is_refused(folder, tmp_path):
    WavLMForXVector(TINY).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="takes audio at 8000 Hz"):
        load_speaker_encoder(str(tmp_path))


def test_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match="(?s)speaker encoder 'nobody/nothing' cannot be loaded.*'wavlm-large-sv'"):
        load_speaker_encoder("nobody/nothing")


@pytest.mark.parametrize("name", ["wavlm-large-sv", "wavlm-base-plus-sv"])
def test_a_model_that_cannot_be_had_is_named_with_what_it_measures(name):
    with pytest.raises(NotMeasuredError, match=f"speaker encoder {name} .*, for .*speaker similarity.*be had: "):
        load_speaker_encoder(name)


class TestThePapersEncoder:
    @pytest.fixture
    def checkpoint(self, monkeypatch, tmp_path):
        path = tmp_path / "checkpoint.pth"
        path.write_bytes(b"weights")
        monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repository, name: str(path))
        return path

    def test_another_file_is_refused(self, checkpoint):
        with pytest.raises(NotMeasuredError, match="wavlm-large-sv .*SIM.*has the SHA-256 .* not that of Microsoft"):
            load_speaker_encoder("wavlm-large-sv")

    def test_it_embeds_at_16_khz(self, checkpoint, monkeypatch):
        network = WavLMSpeakerEncoder(TINY, channels=8, embedding_size=4).eval()
        digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        monkeypatch.setattr(speaker_encoders, "WAVLM_LARGE_SHA256", digest)
        monkeypatch.setattr(speaker_network, "load_speaker_network", lambda path: network)
        embed = load_speaker_encoder("wavlm-large-sv")
        embedding = embed(NOISE[:16000], 16000)
        with torch.no_grad():
            expected = network(torch.from_numpy(NOISE[:16000]))
        np.testing.assert_allclose(embedding, expected / expected.norm(), atol=1e-6)
        assert embed(NOISE, RATE).shape == (4,)


def test_without_resemblyzer_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "resemblyzer", None)
    with pytest.raises(NotMeasuredError, match="resemblyzer .*without a network.*pip install --no-deps resemblyzer"):
        load_speaker_encoder("resemblyzer")


def test_resemblyzer_hears_voices_only(monkeypatch):
    """The calls of the package, where it is not installed."""

    class VoiceEncoder:
        def __init__(self, device, verbose):
            assert device == "cpu" and not verbose

        def embed_utterance(self, samples):
            return np.array([len(samples), 0.0])

    package = SimpleNamespace(VoiceEncoder=VoiceEncoder, preprocess_wav=lambda samples: samples[samples > 0.1])
    monkeypatch.setitem(sys.modules, "resemblyzer", package)
    embed = load_speaker_encoder("resemblyzer")
    np.testing.assert_array_equal(embed(NOISE, RATE), [1, 0])
    with pytest.raises(NotMeasuredError, match="no voice is heard"):
        embed(NOISE * 0.01, RATE)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_resemblyzer_tells_a_hum_from_noise():
    pytest.importorskip("resemblyzer")
    embed = load_speaker_encoder("resemblyzer")
    time = np.arange(2 * RATE) / RATE
    hums = [sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 20)) * 0.1 for pitch in (110, 112, 230)]
    low, lower, high = (embed(hum.astype(np.float32), RATE) for hum in hums)
    assert low.shape == (256,) and low @ low == pytest.approx(1)
    assert low @ lower > low @ high


def test_names():
    assert {"wavlm-large-sv", "resemblyzer"} <= SPEAKER_ENCODERS.keys()
