"""What all tests share: no network, no files of the user's, repeatable random numbers."""

import os
import random
import tempfile

# Set before anything of Hugging Face is imported: these are read at import.
_home = tempfile.TemporaryDirectory(prefix="ditar-hf-tests-")
os.environ.update(
    HF_HOME=_home.name,
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_EVALUATE_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
)
for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE", "TRANSFORMERS_CACHE"):
    os.environ.pop(name, None)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

# The same cases in each run, however long each takes.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# Tiny models gain nothing from more, and results on one thread do not depend on the machine's cores.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


# Sizes of the tiny models: everything of a real one, at the rates of a real one, in a few thousand weights.
TINY_VAE = {
    "latent_dim": 8,
    "encoder_type": "mel",
    "encoder_strides": [150, 4],
    "encoder_hidden_sizes": [16, 16],
    "encoder_num_layers": [1, 1],
    "num_mel_bins": 20,
    "mel_window_length": 300,
    "decoder_type": "istft",
    "decoder_strides": [4, 150],
    "decoder_hidden_sizes": [16, 16],
    "decoder_num_layers": [1, 1],
    "istft_window_length": 600,
    "kernel_size": 3,
}
TINY_TRANSFORMER = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}
TINY_LM = {
    **TINY_TRANSFORMER,
    "model_type": "arcee",
    "vocab_size": 40,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}


@pytest.fixture
def make_vae_config():
    """Factory of tiny `DiTARVAEConfig`s: mel encoder, iSTFT decoder, 600 samples a frame; overrides replace fields."""
    from ditar_hf import DiTARVAEConfig

    return lambda **overrides: DiTARVAEConfig(**{**TINY_VAE, **overrides})


@pytest.fixture
def make_config():
    """
    Factory of tiny `DiTARConfig`s: patches of 4 frames, 40 tokens.

    Dicts for the parts are added to theirs, so that `make_config(lm_config={"num_hidden_layers": 1})` changes one
    field. A `lm_config` of another `model_type`, or a configuration object, replaces the whole.
    """
    from ditar_hf import DiTARConfig

    def make(**overrides):
        parts = {"encoder_config": {**TINY_TRANSFORMER}, "locdit_config": {**TINY_TRANSFORMER}, "vae_config": TINY_VAE}
        parts["lm_config"] = TINY_LM
        values = {"latent_dim": 8}
        for name, part in parts.items():
            override = overrides.pop(name, {})
            if not isinstance(override, dict):
                values[name] = override
            elif override.get("model_type", part.get("model_type")) != part.get("model_type"):
                values[name] = override
            else:
                values[name] = {**part, **override}
        return DiTARConfig(**{**values, **overrides})

    return make


@pytest.fixture
def make_model(make_config):
    """
    Factory of tiny `DiTARForTextToSpeech`s in `eval()`, seeded, fp32, from a `config` or what `make_config` takes.

    Latent statistics matter, and LocDiT's weights are large enough that condition, history and time change its output.
    """
    from ditar_hf import DiTARForTextToSpeech

    def make(config=None, **overrides):
        torch.manual_seed(0)
        model = DiTARForTextToSpeech(make_config(**overrides) if config is None else config).eval()
        channels = torch.linspace(0, 1, model.config.latent_dim)
        model.vae.set_latent_statistics(channels - 0.4, 0.5 + channels)
        with torch.no_grad():
            for parameter in model.locdit.parameters():
                parameter.mul_(3)
        return model

    return make


@pytest.fixture
def save_tiny(make_model):
    """Saves a tiny model with a processor around a tokenizer: `save_tiny(path, tokenizer)` returns the path."""
    from ditar_hf import DiTARFeatureExtractor, DiTARProcessor

    def save(path, tokenizer):
        model = make_model(lm_config={"vocab_size": len(tokenizer), "max_position_embeddings": 2048})
        model.generation_config.num_inference_steps = 2
        model.save_pretrained(path)
        DiTARProcessor(DiTARFeatureExtractor(), tokenizer).save_pretrained(path)
        return path

    return save
