"""Laws of `DiTARDataCollator`: the sequence it lays out, its labels, speech in both forms, and what it refuses."""

import pickle

import numpy as np
import pytest
import torch
from datasets import Dataset

from ditar_hf import DiTARFeatureExtractor, DiTARProcessor, DiTARTokenizer
from ditar_hf.training.collator import DiTARDataCollator

TEXTS = ["The quick brown fox.", "Hello!", "Who jumps over the lazy dog, please?"]
RATE, PATCH_LENGTH, PATCH_SIZE, LATENT_DIM = 24_000, 2400, 4, 8


@pytest.fixture(scope="module")
def collator() -> DiTARDataCollator:
    tokenizer = DiTARTokenizer.from_texts({"en": TEXTS, "de": ["Guten Tag!"]})
    return DiTARDataCollator(DiTARProcessor(DiTARFeatureExtractor(), tokenizer))


@pytest.fixture
def model(make_model, collator):
    return make_model(lm_config={"vocab_size": len(collator.processor.tokenizer)}, alignment_loss_weight=0.5)


def voice(num_samples: int, frequency: float = 180) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(num_samples) / RATE).astype(np.float32) / 2


def audio(num_samples: int, frequency: float = 180) -> dict:
    return {"array": voice(num_samples, frequency), "sampling_rate": RATE}


def latents(num_patches: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num_patches * PATCH_SIZE, LATENT_DIM)).astype(np.float32)


def ids_of(collator, text: str) -> list[int]:
    return collator.processor.tokenizer(text)["input_ids"]


def assert_equal(one: dict, other: dict):
    assert one.keys() == other.keys()
    for key in one:
        assert one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]), key


# Text


def test_text_phonemes_and_ids_give_the_same(collator):
    from_text = collator([{"text": text, "latents": latents(3)} for text in TEXTS])
    phonemes = [collator.processor.tokenizer.phonemize(text) for text in TEXTS]
    assert_equal(collator([{"phonemes": text, "latents": latents(3)} for text in phonemes]), from_text)
    for convert in (list, np.array, torch.tensor):
        rows = [{"input_ids": convert(ids_of(collator, text)), "latents": latents(3)} for text in TEXTS]
        assert_equal(collator(rows), from_text)


def test_ids_come_before_phonemes_before_text(collator):
    ids = ids_of(collator, TEXTS[0])
    phonemes = collator.processor.tokenizer.phonemize(TEXTS[1])
    example = {"text": TEXTS[2], "latents": latents(1)}
    expected = {
        name: collator([{"text": text, "latents": latents(1)}]) for name, text in zip("abc", TEXTS, strict=True)
    }
    assert_equal(collator([{**example, "phonemes": phonemes, "input_ids": ids}]), expected["a"])
    assert_equal(collator([{**example, "phonemes": phonemes, "input_ids": None}]), expected["b"])
    assert_equal(collator([{**example, "phonemes": None}]), expected["c"])


def test_the_language_is_that_of_the_collator(collator):
    german = DiTARDataCollator(collator.processor, language="de")
    expected = collator.processor.tokenizer("Guten Tag!", language="de")["input_ids"]
    batch = german([{"text": "Guten Tag!", "latents": latents(1)}])
    assert batch["input_ids"][0, : len(expected)].tolist() == expected
    assert not torch.equal(batch["input_ids"], collator([{"text": "Guten Tag!", "latents": latents(1)}])["input_ids"])


# Layout


def test_sequence_and_labels(collator):
    tokenizer = collator.processor.tokenizer
    counts = [3, 1, 5]
    batch = collator([{"text": text, "latents": latents(n)} for text, n in zip(TEXTS, counts, strict=True)])
    width = batch["input_ids"].shape[1]
    for row, (text, count) in enumerate(zip(TEXTS, counts, strict=True)):
        ids = ids_of(collator, text)
        expected = [*ids, tokenizer.audio_bos_token_id, *[tokenizer.audio_patch_token_id] * count]
        padding = width - len(expected)
        assert batch["input_ids"][row].tolist() == [tokenizer.pad_token_id] * padding + expected
        assert batch["attention_mask"][row].tolist() == [0] * padding + [1] * len(expected)
        # audio_bos and each patch but the last have a patch behind them
        assert batch["labels"][row].tolist() == [-100] * (padding + len(ids)) + [0] * count + [1]
    assert batch["latents"].shape == (3, 5 * PATCH_SIZE, LATENT_DIM)
    for row, count in enumerate(counts):
        kept = batch["latents_mask"][row].bool()
        assert kept.tolist() == [True] * (count * PATCH_SIZE) + [False] * ((5 - count) * PATCH_SIZE)
        assert torch.equal(batch["latents"][row][kept], torch.from_numpy(latents(count)))
        assert not batch["latents"][row][~kept].any()


def test_a_prompt_is_read_but_not_learnt(collator):
    tokenizer = collator.processor.tokenizer
    rows = [
        {"text": TEXTS[0], "latents": latents(3), "prompt_text": TEXTS[1], "prompt_latents": latents(2, seed=1)},
        {"text": TEXTS[2], "latents": latents(4)},
    ]
    batch = collator(rows)
    before = ids_of(collator, f"{TEXTS[1]} {TEXTS[0]}")
    expected = [*before, tokenizer.audio_bos_token_id, *[tokenizer.audio_patch_token_id] * 5]
    kept = batch["attention_mask"][0].bool()
    assert batch["input_ids"][0][kept].tolist() == expected
    # the first target patch is drawn from the prompt's last patch, not from audio_bos
    assert batch["labels"][0][kept].tolist() == [-100] * (len(before) + 2) + [0, 0, 0, 1]
    speech = torch.from_numpy(np.concatenate((latents(2, seed=1), latents(3))))
    assert torch.equal(batch["latents"][0][batch["latents_mask"][0].bool()], speech)
    # the other row is as without its neighbour
    alone = collator(rows[1:])
    kept = batch["attention_mask"][1].bool()
    assert all(torch.equal(batch[key][1][kept], alone[key][0]) for key in ("input_ids", "labels"))


def test_training_reads_what_generation_reads(collator):
    """Up to the last patch of the prompt, a row of training is the processor's row."""
    prompt = {"prompt_text": TEXTS[1], "prompt_audio": audio(5 * PATCH_LENGTH + 900)}
    inputs = collator.processor(TEXTS[0], **prompt)
    batch = collator([{"text": TEXTS[0], "audio": audio(3 * PATCH_LENGTH), **prompt}])
    length = inputs["input_ids"].shape[1]
    assert torch.equal(batch["input_ids"][:, :length], inputs["input_ids"])
    assert (batch["input_ids"][:, length:] == collator.processor.tokenizer.audio_patch_token_id).all()
    assert torch.equal(batch["prompt_values"], inputs["prompt_values"])
    assert batch["prompt_mask"].all() and batch["waveforms"].shape == (1, 3 * PATCH_LENGTH)


def test_the_encoder_never_hears_a_target_in_its_prompt(model, collator):
    """The model's frames of a prompt are those that `generate` encodes, whatever follows, and means always."""
    prompt = {"prompt_text": TEXTS[1], "prompt_audio": audio(5 * PATCH_LENGTH + 900)}
    examples = [
        {"text": TEXTS[0], "audio": audio(3 * PATCH_LENGTH), **prompt},
        {"text": TEXTS[1], "audio": audio(2 * PATCH_LENGTH)},
    ]
    seen = []
    handle = model.model.patch_encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.config.sample_latents = True
    try:
        model.train()(**collator(examples))
    finally:
        handle.remove()
        model.config.sample_latents = False
        model.eval()
    expected = model.encode_prompts(
        **{
            name: value
            for name, value in collator.processor(TEXTS[0], **prompt).items()
            if name in ("prompt_values", "prompt_mask")
        }
    )[0]
    torch.testing.assert_close(seen[0][:5].flatten(0, 1), expected, atol=1e-5, rtol=0)
    assert len(seen[0]) == 5 + 3 + 2


# Speech


@pytest.mark.parametrize("num_samples", [1, 2399, 2400, 2401, 7000])
def test_targets_are_padded_to_whole_patches(collator, num_samples):
    num_patches = -(-num_samples // PATCH_LENGTH)
    batch = collator([{"text": TEXTS[0], "audio": audio(num_samples)}, {"text": TEXTS[0], "audio": audio(9600)}])
    assert batch["waveforms"].shape == batch["waveforms_mask"].shape == (2, 9600)
    assert torch.equal(batch["waveforms"][0, :num_samples], torch.from_numpy(voice(num_samples)))
    assert not batch["waveforms"][0, num_samples:].any()
    assert batch["waveforms_mask"].sum(1).tolist() == [num_patches * PATCH_LENGTH, 9600]
    assert batch["waveforms_mask"][0, : num_patches * PATCH_LENGTH].all()
    assert (batch["labels"] == 0).sum(1).tolist() == [num_patches, 4]


def test_prompts_are_trimmed_to_whole_patches(collator):
    prompt = {"prompt_audio": audio(2 * PATCH_LENGTH + 2399, frequency=300), "prompt_text": TEXTS[1]}
    batch = collator([{"text": TEXTS[0], "audio": audio(PATCH_LENGTH + 1), **prompt}])
    assert torch.equal(batch["prompt_values"][0], torch.from_numpy(voice(2 * PATCH_LENGTH, 300)))
    assert batch["waveforms"].shape == (1, 2 * PATCH_LENGTH)
    assert (batch["labels"] >= 0).sum() == 3


def test_forms_of_speech(collator):
    expected = collator([{"text": TEXTS[0], "audio": audio(5000)}])
    for convert in (list, torch.from_numpy, np.float64):
        entry = {"array": convert(voice(5000)), "sampling_rate": RATE, "path": None}
        assert_equal(collator([{"text": TEXTS[0], "audio": entry, "speaker": "x"}]), expected)
    expected = collator([{"text": TEXTS[0], "latents": latents(2)}])
    for convert in (np.ndarray.tolist, torch.from_numpy, lambda value: torch.from_numpy(value).double()):
        assert_equal(collator([{"text": TEXTS[0], "latents": convert(latents(2))}]), expected)
    # rows of a data set are such examples
    rows = [{"text": text, "latents": latents(2, seed)} for seed, text in enumerate(TEXTS)]
    assert_equal(
        collator(list(Dataset.from_list([{**r, "latents": r["latents"].tolist()} for r in rows]))), collator(rows)
    )


def test_latents_and_waveforms_have_the_same_loss(model, collator):
    prompt = {"prompt_text": TEXTS[1], "prompt_audio": audio(2 * PATCH_LENGTH, 240)}
    examples = [
        {"text": TEXTS[0], "audio": audio(7000)},
        {"text": TEXTS[2], "audio": audio(12_000, 120), **prompt},
        {"text": TEXTS[1], "audio": audio(2400, 300)},
    ]
    waveforms = collator(examples)
    encoded, mask = model.encode_waveforms(waveforms["waveforms"], waveforms["waveforms_mask"])
    prompts = model.encode_prompts(waveforms["prompt_values"], waveforms["prompt_mask"])
    stored = []
    for row, example in enumerate(examples):
        stored.append({"text": example["text"], "latents": encoded[row][mask[row].bool()].numpy()})
        if "prompt_text" in example:
            stored[-1] |= {"prompt_text": example["prompt_text"], "prompt_latents": prompts[row].numpy()}
    batch = collator(stored)
    assert all(torch.equal(batch[key], waveforms[key]) for key in ("input_ids", "attention_mask", "labels"))
    one, other = (model(**inputs, generator=torch.Generator().manual_seed(1)) for inputs in (waveforms, batch))
    for name in ("loss", "diffusion_loss", "stop_loss"):
        assert torch.allclose(one[name], other[name], atol=1e-5), name
    assert one.diffusion_loss > 0.1 and one.stop_loss > 0.1


def test_the_model_learns_from_target_patches_only(model, collator, monkeypatch):
    seen = []
    original = model._diffusion_loss
    monkeypatch.setattr(
        model, "_diffusion_loss", lambda states, target, *rest: seen.append(target) or original(states, target, *rest)
    )
    prompt = {"prompt_text": TEXTS[1], "prompt_latents": latents(2, seed=5)}
    model(
        **collator([{"text": TEXTS[0], "latents": latents(3), **prompt}, {"text": TEXTS[2], "latents": latents(1, 7)}])
    )
    expected = np.concatenate((latents(3), latents(1, 7))).reshape(4, PATCH_SIZE, LATENT_DIM)
    assert torch.equal(seen[0], torch.from_numpy(expected))


# Alignment


def test_alignment_points_at_the_spoken_tokens_of_the_padded_batch(model, collator):
    alignments = [[0, 2, -100, 5], [1], None, [3, 3, 4]]
    prompts = [{}, {}, {}, {"prompt_text": TEXTS[2], "prompt_latents": latents(6)}]
    texts = [TEXTS[0], TEXTS[1], TEXTS[2], TEXTS[0]]
    rows = [
        {"text": text, "latents": latents(len(alignment or [0] * 2)), "alignment": alignment, **prompt}
        for text, alignment, prompt in zip(texts, alignments, prompts, strict=True)
    ]
    batch = collator(rows)
    assert batch["alignment_targets"].shape == batch["input_ids"].shape
    for row, (text, alignment) in enumerate(zip(texts, alignments, strict=True)):
        labels = batch["alignment_targets"][row]
        # on the states that target patches are drawn from, which are those with stop label 0
        drawn = (batch["labels"][row] == 0).nonzero()[:, 0]
        assert (labels[batch["labels"][row] != 0] == -100).all()
        ids = ids_of(collator, text)
        expected = [-100 if index == -100 else ids[index] for index in alignment or [-100] * 2]
        found = [-100 if place == -100 else batch["input_ids"][row, place].item() for place in labels[drawn].tolist()]
        assert found == expected
    # a place in the text, not in the prompt's transcript that stands before it
    first = batch["alignment_targets"][3].max() - 4
    text = batch["input_ids"][3, first : first + len(ids_of(collator, TEXTS[0]))]
    assert text.tolist() == ids_of(collator, TEXTS[0])
    assert model(**batch).alignment_loss > 0


def test_without_alignments_no_state_is_labelled(model, collator):
    rows = [{"text": TEXTS[0], "latents": latents(2)}, {"text": TEXTS[1], "latents": latents(2), "alignment": None}]
    batch = collator(rows)
    # the keys are always the same, since the `Trainer` evaluates only where all labels are there
    keys = ["input_ids", "attention_mask", "labels", "alignment_targets"]
    assert list(batch) == [*keys, "latents", "latents_mask"]
    assert list(collator([{"text": TEXTS[0], "audio": audio(100)}])) == [*keys, "waveforms", "waveforms_mask"]
    assert batch["alignment_targets"].shape == batch["labels"].shape and (batch["alignment_targets"] == -100).all()
    assert model(**batch).alignment_loss == 0


def test_workers_can_have_it(collator):
    rows = [{"text": text, "latents": latents(2)} for text in TEXTS]
    assert_equal(pickle.loads(pickle.dumps(collator))(rows), collator(rows))


# Bad examples

GOOD = {"text": TEXTS[0], "latents": latents(2)}
BAD_LATENTS = latents(2)
BAD_LATENTS[3, 3] = np.nan
BAD_VOICE = voice(5000)
BAD_VOICE[17] = np.inf


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"text": "Hello!"}, r"`examples\[1\]` has neither `latents` nor `audio`; its keys are \['text'\]"),
        ({"latents": latents(2)}, "has no `text`, `phonemes` or `input_ids`"),
        ({**GOOD, "text": ""}, r"`examples\[1\]` has an empty text"),
        ({**GOOD, "input_ids": []}, "has an empty text"),
        ({**GOOD, "input_ids": [5, 2, 6]}, "control token 2 in its text"),
        ({**GOOD, "input_ids": [5, 3]}, "control token 3 in its text"),
        ({**GOOD, "latents": latents(2)[:-1]}, r"\['latents'\]` has shape \[7, 8\].*multiple of 4 frames"),
        ({**GOOD, "latents": latents(2)[:0]}, r"has shape \[0, 8\]"),
        ({**GOOD, "latents": latents(2)[None]}, r"has shape \[1, 8, 8\]"),
        ({**GOOD, "latents": BAD_LATENTS}, "holds NaN or infinite values"),
        ({"text": TEXTS[0], "audio": audio(5000)}, "mix latents and audio"),
        ({**GOOD, "prompt_text": "Hello!"}, "a prompt's speech without its text, or the text without"),
        ({**GOOD, "prompt_latents": latents(1)}, "a prompt's speech without its text, or the text without"),
        ({**GOOD, "prompt_text": "Hello!", "prompt_audio": audio(5000)}, "mixes latents and audio in prompt"),
        ({**GOOD, "prompt_text": "", "prompt_latents": latents(1)}, "empty text"),
        ({**GOOD, "alignment": [1]}, r"\['alignment'\]` has 1 entries for 2 patches"),
        ({**GOOD, "alignment": [1, 999]}, "points at token 999 of a text of 1"),
        ({**GOOD, "alignment": [-1, 1]}, "points at token -1"),
    ],
)
def test_bad_examples(collator, example, message):
    with pytest.raises(ValueError, match=message):
        collator([GOOD, example])


@pytest.mark.parametrize(
    ("sound", "message"),
    [
        ({"array": voice(5000), "sampling_rate": 16_000}, "has 16000 samples a second, the model 24000: resample"),
        ({"array": BAD_VOICE, "sampling_rate": RATE}, "must be finite mono samples"),
        (
            {"array": np.stack([voice(5000)] * 2), "sampling_rate": RATE},
            r"must be finite mono samples, got \[2, 5000\]",
        ),
        ({"array": voice(0), "sampling_rate": RATE}, r"must be finite mono samples, got \[0\]"),
    ],
)
def test_bad_audio(collator, sound, message):
    good = {"text": TEXTS[0], "audio": audio(5000)}
    with pytest.raises(ValueError, match=rf"`examples\[1\]\['audio'\]` {message}"):
        collator([good, {**good, "audio": sound}])
    with pytest.raises(ValueError, match=rf"`examples\[1\]\['prompt_audio'\]` {message}"):
        collator([good, {**good, "prompt_audio": sound, "prompt_text": "Hello!"}])


def test_a_prompt_shorter_than_a_patch_is_refused(collator):
    example = {"text": TEXTS[0], "audio": audio(5000), "prompt_text": "Hello!", "prompt_audio": audio(2399)}
    with pytest.raises(ValueError, match=r"\['prompt_audio'\]` is shorter than one patch \(2400 samples\)"):
        collator([example])


def test_an_empty_batch_is_refused(collator):
    with pytest.raises(ValueError, match="`examples` is empty"):
        collator([])
