"""The network of the papers' speaker similarity, against the code it was published with."""

import math
import re

import numpy as np
import pytest
import torch
from transformers import WavLMConfig

from ditar_hf.evaluation.speaker_network import WavLMSpeakerEncoder, load_speaker_network

TINY = WavLMConfig(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    feat_extract_norm="layer",
    do_stable_layer_norm=True,
    conv_dim=[8] * 7,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=4,
)
# From the names of transformers to those of the checkpoint: written down a second time, in the other direction.
ORIGINAL_NAMES = [
    (r"^backbone\.", "feature_extract.model."),
    (r"(conv_layers\.\d+)\.conv\.", r"\1.0."),
    (r"(conv_layers\.\d+)\.layer_norm\.", r"\1.2.1."),
    (r"feature_projection\.layer_norm", "layer_norm"),
    (r"feature_projection\.projection", "post_extract_proj"),
    (r"masked_spec_embed", "mask_emb"),
    (r"pos_conv_embed\.conv\.parametrizations\.weight\.original0", "pos_conv.0.weight_g"),
    (r"pos_conv_embed\.conv\.parametrizations\.weight\.original1", "pos_conv.0.weight_v"),
    (r"pos_conv_embed\.conv\.bias", "pos_conv.0.bias"),
    (r"(layers\.\d+)\.layer_norm", r"\1.self_attn_layer_norm"),
    (r"attention\.gru_rel_pos_linear", "self_attn.grep_linear"),
    (r"attention\.gru_rel_pos_const", "self_attn.grep_a"),
    (r"attention\.rel_attn_embed", "self_attn.relative_attention_bias"),
    (r"\.attention\.", ".self_attn."),
    (r"feed_forward\.intermediate_dense", "fc1"),
    (r"feed_forward\.output_dense", "fc2"),
]


def tiny_network():
    return WavLMSpeakerEncoder(TINY, channels=24, embedding_size=4).eval()


def original_name(name):
    for pattern, replacement in ORIGINAL_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def by_formula(name, value):
    """Weights that need no file: a sine over the elements, its phase from the original name."""
    if not value.is_floating_point():
        return value
    wave = torch.sin(1.7 * torch.arange(value.numel(), dtype=torch.float64) + sum(map(ord, name))).reshape(value.shape)
    positive = name.endswith(("running_var", "weight_g")) or (value.ndim == 1 and name.endswith(".weight"))
    return (1 + 0.3 * wave if positive else 0.3 * wave).to(value.dtype)


@pytest.fixture(scope="module")
def original_weights():
    names = {original_name(name): value for name, value in tiny_network().state_dict().items()}
    return {name: by_formula(name, value) for name, value in names.items()}


def test_it_embeds_as_the_published_code_does(original_weights):
    """
    The numbers are of the ECAPA_TDNN of UniSpeech (downstreams/speaker_verification/models/ecapa_tdnn.py, with three
    times `channels` instead of 1536) on the WavLM of s3prl 0.4.18, of these sizes and weights.
    """
    network = tiny_network()
    network.load_original(original_weights)
    seconds = np.arange(8000) / 16000
    chirp = np.sin(2 * math.pi * (200 * seconds + 300 * seconds**2)) * (0.2 + seconds)
    with torch.no_grad():
        embedding = network(torch.tensor(chirp, dtype=torch.float32))
    np.testing.assert_allclose(embedding, [4.974840, 3.146211, 1.763446, 0.379415], rtol=1e-4)


def test_every_name_of_the_checkpoint_is_told(original_weights):
    assert len(original_weights) == 292
    assert not any("backbone" in name or ".attention." in name for name in original_weights)
    # the classifier of its training is left out, and nothing else
    network = tiny_network()
    network.load_original({**original_weights, "loss_calculator.projection.weight": torch.zeros(3)})
    assert torch.equal(network.linear.bias, original_weights["linear.bias"])
    for broken in (
        {name: value for name, value in original_weights.items() if name != "layer3.SE_Connect.linear1.bias"},
        {**original_weights, "surprise": torch.zeros(1)},
        {**original_weights, "linear.bias": torch.zeros(5)},
    ):
        with pytest.raises(ValueError, match="are not those of WavLM with ECAPA-TDNN"):
            tiny_network().load_original(broken)


def test_loudness_does_not_matter():
    network, samples = tiny_network(), torch.randn(4000)
    with torch.no_grad():
        torch.testing.assert_close(network(samples), network(samples * 5), rtol=1e-3, atol=1e-4)


def test_the_large_one_has_as_many_weights_as_the_checkpoint():
    with torch.device("meta"):
        network = WavLMSpeakerEncoder()
    # 711 with the classifier of its training, which is not ours
    assert len(network.state_dict()) == 710


class Harmful:
    def __reduce__(self):
        return print, ("this ran",)


@pytest.mark.parametrize("content", [b"no checkpoint", {"weights": {}}, {"model": Harmful()}, {"model": {}}])
def test_another_file_is_refused_and_not_run(tmp_path, content, capsys):
    path = tmp_path / "checkpoint.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ValueError, match="checkpoint.pth|are not those of"):
        load_speaker_network(path)
    assert "this ran" not in capsys.readouterr().out


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="missing.pth' is no checkpoint"):
        load_speaker_network(tmp_path / "missing.pth")
