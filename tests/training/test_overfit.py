"""The plain `Trainer` with our collator: it trains, evaluates and saves; and given time, it learns clips by heart."""

import itertools

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainingArguments, pipeline
from transformers.audio_utils import mel_filter_bank

from ditar_hf import (
    DiTARConfig,
    DiTARFeatureExtractor,
    DiTARForTextToSpeech,
    DiTARProcessor,
    DiTARTokenizer,
    DiTARVAE,
)
from ditar_hf.training.collator import DiTARDataCollator

RATE, PATCH_LENGTH, PATCH_SIZE = 24_000, 2400, 4
SYMBOLS = list("abdefɡhijklmnopstuvwz")


def make_clip(index: int) -> np.ndarray:
    """A gliding, pulsating harmonic tone of 0.8 to 1.5 seconds, of another pitch and timbre than its neighbours'."""
    time = np.arange((8 + index) * PATCH_LENGTH - 37 * index) / RATE
    pitch = 110 * 2 ** (index / 4) * (1 + (0.5 if index % 2 else -0.3) * time / time[-1])
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    tone = sum(np.sin(harmonic * phase) * harmonic ** -(0.5 + index % 3) for harmonic in range(1, 9))
    tone = tone * (0.55 + 0.45 * np.sin(2 * np.pi * (2 + index / 2) * time))
    return (0.6 * tone / np.abs(tone).max()).astype(np.float32)


CLIPS = [make_clip(index) for index in range(8)]
# Strings of 7 to 14 symbols, all different.
PHONEMES = ["".join(SYMBOLS[(7 * place + 5 * index) % 21] for place in range(7 + index)) for index in range(8)]


@pytest.fixture(scope="module")
def processor() -> DiTARProcessor:
    return DiTARProcessor(DiTARFeatureExtractor(), DiTARTokenizer.from_phonemes(SYMBOLS))


def make_arguments(folder, **overrides) -> TrainingArguments:
    defaults = {
        "per_device_train_batch_size": 8,
        "remove_unused_columns": False,
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
    }
    return TrainingArguments(output_dir=str(folder), **{**defaults, **overrides})


def test_the_plain_trainer_trains_evaluates_and_saves(make_model, processor, tmp_path):
    model = make_model(lm_config={"vocab_size": len(processor.tokenizer)}, num_noise_samples=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    examples = [
        {"phonemes": phonemes, "audio": {"array": clip, "sampling_rate": RATE}}
        for phonemes, clip in zip(PHONEMES, CLIPS, strict=True)
    ]
    trainer = Trainer(
        model,
        make_arguments(
            tmp_path,
            max_steps=3,
            per_device_train_batch_size=2,
            per_device_eval_batch_size=3,
            logging_steps=1,
            eval_strategy="steps",
            eval_steps=3,
            save_steps=3,
            learning_rate=1e-3,
        ),
        train_dataset=examples[:6],
        eval_dataset=examples[6:],
        data_collator=DiTARDataCollator(processor),
        processing_class=processor,
    )
    assert trainer.model_accepts_loss_kwargs  # so that gradient accumulation weights micro-batches by their labels
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    evaluated = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(losses) == 3 and len(evaluated) == 1
    assert all(0 < float(loss) < 100 for loss in losses + evaluated)

    # all has learnt but the tokenizer of speech
    after = model.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if name.startswith("vae.")}

    saved = DiTARForTextToSpeech.from_pretrained(tmp_path / "checkpoint-3")
    assert all(torch.equal(value, after[name]) for name, value in saved.state_dict().items())
    speak = pipeline("text-to-speech", model=str(tmp_path / "checkpoint-3"))
    settings = {"max_new_tokens": 2, "min_new_tokens": 2, "temperature": 0}
    output = speak(PHONEMES[0], preprocess_params={"phonemize": False}, generate_kwargs=settings)
    model.eval()
    expected = model.generate(**processor(PHONEMES[0], phonemize=False), **settings).audio[0]
    assert np.allclose(output["audio"], expected.numpy(), atol=1e-5)


# Learning by heart


def train_decoder(vae: DiTARVAE, waveforms: torch.Tensor, mask: torch.Tensor, num_steps: int = 400):
    """Teaches the decoder these clips; the encoder stays as it is, for random features tell clips apart well."""
    vae.eval()
    with torch.no_grad():
        posterior = vae.encode(waveforms, mask)
        frames = posterior.mode()[posterior.mask.bool()]
    vae.set_latent_statistics(frames.mean(0), frames.std(0))
    optimizer = torch.optim.AdamW(vae.decoder.parameters(), lr=5e-3, betas=(0.8, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, num_steps)
    for _ in range(num_steps):
        rows = torch.randperm(len(waveforms))[:2]
        vae(waveforms[rows], mask[rows]).loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 10)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def log_mel(waveform: torch.Tensor) -> torch.Tensor:
    filters = mel_filter_bank(513, 80, 0, RATE / 2, RATE, norm="slaney", mel_scale="slaney")
    window = torch.hann_window(1024)
    magnitudes = torch.stft(waveform, 1024, 256, window=window, return_complex=True).abs()
    return (torch.from_numpy(filters).float().T @ magnitudes).clamp_min(1e-5).log()


def mel_distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """L1 of log-mel spectra, as far as both waveforms go."""
    length = min(len(one), len(other))
    return (log_mel(one[:length]) - log_mel(other[:length])).abs().mean().item()


@pytest.mark.slow
def test_clips_are_learnt_by_heart(make_vae_config, processor, tmp_path):
    vae_config = make_vae_config(
        encoder_hidden_sizes=[32, 32], num_mel_bins=40, mel_window_length=600, decoder_hidden_sizes=[64, 64]
    )
    vae = DiTARVAE(vae_config)
    collator = DiTARDataCollator(processor)
    batch = collator(
        [
            {"phonemes": phonemes, "audio": {"array": clip, "sampling_rate": RATE}}
            for phonemes, clip in zip(PHONEMES, CLIPS, strict=True)
        ]
    )
    train_decoder(vae, batch["waveforms"], batch["waveforms_mask"])
    transformer = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 256}
    lm_config = {"model_type": "arcee", "vocab_size": len(processor.tokenizer), "hidden_act": "gelu"}
    tokens = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    config = DiTARConfig(
        lm_config={**lm_config, **tokens, **transformer, "num_key_value_heads": 4},
        encoder_config={**transformer, "num_hidden_layers": 1},
        locdit_config=transformer,
        vae_config=vae_config,
        latent_dim=8,
        num_noise_samples=4,
        timestep_distribution="logit_normal",
        history_noise_std=0.1,
    )
    model = DiTARForTextToSpeech.from_vae(vae, config)
    latents, mask = model.encode_waveforms(batch["waveforms"], batch["waveforms_mask"])
    with torch.no_grad():
        own = [
            model.vae.decode(row[keep.bool()][None])[0].clamp(-1, 1) for row, keep in zip(latents, mask, strict=True)
        ]
    between = np.mean([mel_distance(one, other) for one, other in itertools.combinations(own, 2)])

    trainer = Trainer(
        model,
        make_arguments(
            tmp_path,
            max_steps=1600,
            learning_rate=4e-3,
            lr_scheduler_type="cosine",
            warmup_steps=50,
            adam_beta2=0.98,
            logging_steps=100,
            save_strategy="no",
        ),
        train_dataset=[
            {"phonemes": phonemes, "latents": row[keep.bool()].numpy()}
            for phonemes, row, keep in zip(PHONEMES, latents, mask, strict=True)
        ],
        data_collator=collator,
    )
    trainer.train()
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.05 * losses[0]
    assert losses[-1] > 0.7 * losses[-3]  # flat: 200 more steps bring little

    model.eval()
    inputs = processor(PHONEMES, phonemize=False)
    for temperature in (0, 1):
        generator = torch.Generator().manual_seed(0)
        output = model.generate(**inputs, temperature=temperature, guidance_scale=1, generator=generator)
        assert not output.reached_limit.any()
        for audio, reconstruction in zip(output.audio, own, strict=True):
            assert abs(len(audio) - len(reconstruction)) <= PATCH_LENGTH
            assert mel_distance(audio, reconstruction) <= 0.1 * between
