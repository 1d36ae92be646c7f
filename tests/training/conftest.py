"""Recordings and tiny runs for the tests of training."""

import numpy as np
import pytest
import soundfile
import torch


def tone(seconds: float, rate: int, pitch: float) -> np.ndarray:
    """A buzz with a little noise, float32 of shape `(num_samples,)`."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(round(pitch)).standard_normal(len(time)) * 0.02
    return (0.2 * np.sign(np.sin(2 * np.pi * pitch * time)) + noise).astype(np.float32)


@pytest.fixture
def recordings(tmp_path):
    """Folder of six recordings of about half a second, of 24 and of 16 kHz."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for index in range(6):
        rate = 24000 if index % 2 else 16000
        soundfile.write(folder / f"{index}.wav", tone(0.4 + 0.05 * index, rate, 110 + 30 * index), rate)
    return folder


@pytest.fixture
def make_vae(make_vae_config):
    """Factory of tiny `DiTARVAE`s in `eval()` whose latent statistics matter; overrides replace fields."""
    from ditar_hf import DiTARVAE

    def make(seed=0, **overrides):
        torch.manual_seed(seed)
        vae = DiTARVAE(make_vae_config(**overrides)).eval()
        channels = torch.linspace(0, 1, vae.config.latent_dim)
        vae.set_latent_statistics(channels - 0.4, 0.5 + channels)
        return vae

    return make


TINY_DISCRIMINATORS = {
    "crop_seconds": 0.1,
    "periods": (2, 3),
    "period_channels": (4, 8),
    "num_scales": 1,
    "scale_channels": (4, 8),
    "scale_strides": (1, 4),
    "scale_groups": (1, 2),
}


@pytest.fixture
def make_vae_arguments(tmp_path, recordings, make_vae_config):
    """Factory of `VAETrainingArguments` of a run of six steps that goes through all phases; overrides replace."""
    from ditar_hf.training.data import AudioSource
    from ditar_hf.training.vae_arguments import VAETrainingArguments
    from ditar_hf.training.vae_crops import CropArguments
    from ditar_hf.training.vae_discriminators import DiscriminatorArguments

    sizes = make_vae_config().to_diff_dict()
    sizes = {name: sizes[name] for name in sizes if name not in ("model_type", "transformers_version")}

    def make(**overrides):
        values = {
            "output_dir": str(tmp_path / "run"),
            "data": [AudioSource(str(recordings))],
            "vae": sizes,
            "crops": CropArguments(crop_seconds=0.2, max_speed_change=0.1),
            "discriminators": DiscriminatorArguments(**TINY_DISCRIMINATORS),
            "max_steps": 6,
            "batch_size": 2,
            "learning_rate": 1e-3,
            "warmup_steps": 1,
            "adversarial_start_step": 2,
            "freeze_encoder_step": 5,
            "num_statistics_batches": 2,
            "logging_steps": 2,
            "save_steps": 3,
            "cpu": True,
        }
        return VAETrainingArguments(**{**values, **overrides})

    return make


@pytest.fixture
def load_tensors():
    """`load_tensors(checkpoint)`: everything in a checkpoint by file and name, for comparisons bit by bit."""
    from safetensors.torch import load_file

    def flatten(value, prefix):
        if isinstance(value, dict):
            for key, item in value.items():
                yield from flatten(item, f"{prefix}/{key}")
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                yield from flatten(item, f"{prefix}/{index}")
        elif isinstance(value, torch.Tensor | int | float | str | bool | type(None)):
            yield prefix, value

    def load(checkpoint):
        found = {}
        for file in sorted(checkpoint.iterdir()):
            if file.suffix == ".safetensors":
                found.update(flatten(load_file(file), file.name))
            elif file.suffix in (".bin", ".pkl") and "random" not in file.name:
                found.update(flatten(torch.load(file, weights_only=False), file.name))
        return found

    return load
