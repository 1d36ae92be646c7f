"""Laws of a processor's named voices: each is a prompt, which is found again where the model lies."""

import copy
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers.processing_utils
import transformers.utils.hub
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoFeatureExtractor, AutoProcessor, AutoTokenizer, PreTrainedTokenizerFast

from ditar_hf.modeling.configuration_ditar import DiTARConfig
from ditar_hf.modeling.feature_extraction_ditar import DiTARFeatureExtractor
from ditar_hf.modeling.processing_ditar import DiTARProcessor
from ditar_hf.modeling.tokenization_ditar import DiTARTokenizer

RATE, PATCH = 24_000, 2_400
TEXTS = ["The quick brown fox.", "Hello!", "Who jumps over the lazy dog, please?"]


def tone(seconds: float, pitch: float, rate: int = RATE) -> np.ndarray:
    return (np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate) / 3).astype(np.float32)


def letters() -> PreTrainedTokenizerFast:
    """A tokenizer such as those of text language models."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator([*TEXTS, *TEXTS], trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    control_tokens = {"audio_bos_token": "<audio_bos>", "audio_patch_token": "<audio_patch>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, padding_side="left", **control_tokens)


@pytest.fixture(scope="module")
def tokenizers() -> dict:
    AutoTokenizer.register(DiTARConfig, slow_tokenizer_class=DiTARTokenizer, exist_ok=True)
    AutoFeatureExtractor.register(DiTARConfig, DiTARFeatureExtractor, exist_ok=True)
    AutoProcessor.register(DiTARConfig, DiTARProcessor, exist_ok=True)
    phonemes = DiTARTokenizer.from_texts({"en": TEXTS, "de": ["Guten Tag, wie geht es?"]})
    return {"phonemes": phonemes, "letters": letters()}


def make(tokenizer, **extractor) -> DiTARProcessor:
    """A processor with two voices."""
    processor = DiTARProcessor(DiTARFeatureExtractor(**extractor), tokenizer)
    processor.add_voice("ada", tone(0.75, 220), RATE, "Hello!")
    processor.add_voice("bob-2", tone(0.8, 110, 16_000), 16_000, "The brown dog.")
    return processor


@pytest.fixture(params=["phonemes", "letters"])
def processor(request, tokenizers) -> DiTARProcessor:
    return make(tokenizers[request.param], prompt_peak=0.9)


@pytest.fixture
def reads_phonemes(tokenizers) -> DiTARProcessor:
    return make(tokenizers["phonemes"])


def by_hand(processor, name) -> dict:
    """The same voice as the prompt of a call."""
    voice = processor.voices[name]
    return {"prompt_audio": voice.audio, "prompt_text": voice.text, "sampling_rate": voice.sampling_rate}


def assert_equal(one, other):
    assert list(one) == list(other)
    assert all(torch.equal(one[key], other[key]) for key in one)


def contents(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def own_files(folder) -> dict[str, bytes]:
    """All but the tokenizer's, in which the library notes whether they were loaded."""
    return {name: content for name, content in contents(folder).items() if name.startswith(("voices/", "processor_"))}


# What a name stands for


@pytest.mark.parametrize("name", ["ada", "bob-2"])
def test_a_name_is_its_prompt(processor, name):
    named = processor(TEXTS[0], voice=name)
    assert list(named) == processor.model_input_names
    assert_equal(named, processor(TEXTS[0], **by_hand(processor, name)))
    assert_equal(processor(TEXTS, voice=name), processor(TEXTS, **by_hand(processor, name)))


def test_a_voice_is_its_recording_as_a_prompt(processor):
    recording = {"prompt_audio": tone(0.8, 110, 16_000), "prompt_text": "The brown dog.", "sampling_rate": 16_000}
    named, given = processor(TEXTS[0], voice="bob-2"), processor(TEXTS[0], **recording)
    assert torch.equal(named["input_ids"], given["input_ids"])
    assert torch.allclose(named["prompt_values"], given["prompt_values"], atol=2**-14)
    voice = processor.voices["bob-2"]
    assert voice.sampling_rate == RATE and len(voice.audio) == 8 * PATCH
    assert abs(np.abs(voice.audio).max() - 0.9) < 1e-4


def test_what_a_name_generates_is_what_its_prompt_generates(make_model, reads_phonemes):
    processor = reads_phonemes
    model = make_model(lm_config={"vocab_size": len(processor.tokenizer)})
    settings = {"temperature": 0, "num_inference_steps": 2, "max_new_tokens": 3, "min_new_tokens": 3}

    def latents(**inputs):
        return model.generate(**processor(TEXTS[0], **inputs), **settings).latents[0]

    ada, bob = latents(voice="ada"), latents(voice="bob-2")
    assert torch.equal(ada, latents(**by_hand(processor, "ada"))) and not torch.equal(ada, bob)
    assert torch.equal(latents(voice="random"), latents())
    batch = model.generate(**processor([TEXTS[0]] * 3, voice=["ada", "random", "bob-2"]), **settings)
    for row, alone in zip(batch.latents, (ada, latents(), bob), strict=True):
        assert torch.allclose(row, alone, atol=1e-4)


def test_a_batch_of_voices_equals_its_rows(processor):
    names = ["bob-2", "random", "ada"]
    batch = processor(TEXTS, voice=names)
    for index, (text, name) in enumerate(zip(TEXTS, names, strict=True)):
        row = processor(text, voice=name)
        for key, mask in (("input_ids", "attention_mask"), ("prompt_values", "prompt_mask")):
            kept = batch[mask][index].bool()
            assert torch.equal(batch[key][index][kept], row[key][0] if key in row else torch.zeros(0))


def test_without_a_name_the_default_speaks_unless_there_is_a_prompt(processor):
    plain, prompt = processor(TEXTS), by_hand(processor, "bob-2")
    given = processor(TEXTS, **prompt)
    some = {"prompt_audio": [None, tone(0.6, 99), None], "prompt_text": [None, "Hello!", None], "sampling_rate": RATE}
    partly = processor(TEXTS, **some)
    processor.default_voice = "ada"
    assert_equal(processor(TEXTS), processor(TEXTS, voice="ada"))
    assert_equal(processor(TEXTS, voice=[None] * 3), processor(TEXTS, voice="ada"))
    mixed = processor(TEXTS, voice=["bob-2", None, "random"])
    assert_equal(mixed, processor(TEXTS, voice=["bob-2", "ada", "random"]))
    assert_equal(processor(TEXTS, voice="random"), plain)
    assert_equal(processor(TEXTS, **prompt), given)
    assert_equal(processor(TEXTS, **some), partly)
    assert_equal(processor(TEXTS, prompt_audio=[None] * 3, prompt_text=[None] * 3), plain)


def test_a_transcript_stays_in_its_language(reads_phonemes):
    processor = reads_phonemes
    processor.add_voice("uwe", tone(0.6, 90), RATE, "Guten Tag!", language="de")
    german = processor.tokenizer.phonemize("Guten Tag!", "de")
    assert processor.voices["uwe"].phonemes == german != processor.tokenizer.phonemize("Guten Tag!")
    ids = processor(TEXTS[0], voice="uwe")["input_ids"][0]
    expected = f"{german} {processor.tokenizer.phonemize(TEXTS[0])}"
    assert processor.decode(ids, skip_special_tokens=True) == expected
    english = processor.decode(processor("Guten Tag!", voice="ada", language="de")["input_ids"][0])
    assert english.startswith(processor.tokenizer.phonemize("Hello!")) and german in english
    processor.add_voice("uwe", tone(0.6, 90), RATE, german, phonemize=False)
    assert torch.equal(processor(TEXTS[0], voice="uwe")["input_ids"][0], ids)


def test_phoneme_strings_are_spoken_without_a_phonemizer(reads_phonemes, monkeypatch):
    processor, phonemes = reads_phonemes, reads_phonemes.tokenizer.phonemize(TEXTS[0])
    expected = processor(TEXTS[0], voice="ada")
    monkeypatch.setattr("ditar_hf.modeling.tokenization_ditar.text_to_phones", None)  # a call would raise
    assert_equal(processor(phonemes, voice="ada", phonemize=False), expected)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copies_have_the_voices(processor, duplicate):
    assert_equal(duplicate(processor)(TEXTS, voice="ada"), processor(TEXTS, voice="ada"))


def test_a_name_that_is_known_is_replaced(processor):
    before = processor(TEXTS[0], voice="ada")
    processor.add_voice("ada", {"array": tone(0.6, 300), "sampling_rate": RATE}, None, "Hello!")
    assert processor(TEXTS[0], voice="ada")["prompt_values"].shape != before["prompt_values"].shape


# Saving and loading


def test_saved_loaded_and_saved_is_the_same(processor, tmp_path):
    processor.default_voice = "bob-2"
    processor.save_pretrained(tmp_path / "one")
    for loaded in (DiTARProcessor.from_pretrained(tmp_path / "one"), AutoProcessor.from_pretrained(tmp_path / "one")):
        assert type(loaded) is DiTARProcessor and loaded.default_voice == "bob-2"
        for name in ("ada", "bob-2", "random", None):
            assert_equal(loaded(TEXTS, voice=name), processor(TEXTS, voice=name))
        for _ in range(2):
            loaded.save_pretrained(tmp_path / "two")
            assert contents(tmp_path / "two").keys() == contents(tmp_path / "one").keys()
            assert own_files(tmp_path / "two") == own_files(tmp_path / "one")
    assert own_files(tmp_path / "one").keys() == {"processor_config.json", "voices/ada.wav", "voices/bob-2.wav"}


def test_a_processor_without_voices_is_saved_as_before(tokenizers, tmp_path):
    processor = DiTARProcessor(DiTARFeatureExtractor(), tokenizers["phonemes"])
    processor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "processor_config.json").read_text())
    assert config.keys() == {"feature_extractor", "max_text_length", "processor_class"}
    assert not (tmp_path / "voices").exists()
    loaded = DiTARProcessor.from_pretrained(tmp_path)
    assert (loaded.voices, loaded.default_voice) == ({}, None)
    assert_equal(loaded(TEXTS), processor(TEXTS))


@pytest.fixture
def hub(reads_phonemes, make_config, tmp_path):
    """A cache of the Hub with a repository that holds the processor in a folder, at the revision `v1`."""
    commit, repository = "0123456789" * 4, tmp_path / "cache" / "models--me--model"
    folder = repository / "snapshots" / commit / "inner"
    make_config().save_pretrained(folder)
    reads_phonemes.save_pretrained(folder)
    (repository / "refs").mkdir()
    (repository / "refs" / "v1").write_text(commit)
    where = {"revision": "v1", "subfolder": "inner", "cache_dir": tmp_path / "cache", "local_files_only": True}
    return SimpleNamespace(where=where, folder=folder)


def test_voices_are_found_on_the_hub(hub, reads_phonemes):
    loaded = DiTARProcessor.from_pretrained("me/model", **hub.where)
    assert_equal(loaded(TEXTS[0], voice="bob-2"), reads_phonemes(TEXTS[0], voice="bob-2"))
    (hub.folder / "voices" / "ada.wav").unlink()
    with pytest.raises(OSError, match=r"`voices/ada\.wav` of 'me/model' cannot be had"):
        DiTARProcessor.from_pretrained("me/model", **hub.where)


def test_voices_are_pushed_to_the_hub(reads_phonemes, tmp_path, monkeypatch):
    pushed = []
    api = SimpleNamespace(
        create_repo=lambda name, **options: SimpleNamespace(repo_id=name),
        create_commit=lambda operations, **options: pushed.extend(each.path_in_repo for each in operations),
    )
    monkeypatch.setattr(transformers.processing_utils, "hf_api", lambda: api)
    monkeypatch.setattr(transformers.utils.hub, "hf_api", lambda: api)
    reads_phonemes.save_pretrained(str(tmp_path / "model"), push_to_hub=True, repo_id="me/model")
    assert sorted(pushed) == sorted(contents(tmp_path / "model")) and "voices/ada.wav" in pushed


@pytest.mark.parametrize("broken", ["voices/bob-2.wav", "processor_config.json"])
def test_a_failed_save_is_told_from_a_whole_one(reads_phonemes, tmp_path, monkeypatch, broken):
    reads_phonemes.save_pretrained(tmp_path)
    before, write = contents(tmp_path), Path.write_bytes
    other = DiTARProcessor.from_pretrained(tmp_path)
    other.add_voice("ada", tone(0.9, 300), RATE, "Hello!")
    other.add_voice("bob-2", tone(0.9, 150), RATE, "Hello!")

    def fail(path, *arguments, **options):
        write(path, b"half")
        if path.name.startswith(f".{Path(broken).stem}."):
            raise OSError("No space left on device")
        return write(path, *arguments)

    monkeypatch.setattr(Path, "write_bytes", fail)
    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="No space left"):
        other.save_pretrained(tmp_path)
    assert contents(tmp_path).keys() == before.keys()
    assert contents(tmp_path)[broken] == before[broken]
    with pytest.raises(ValueError, match=r"`voices/ada\.wav` is not the file that was saved"):
        DiTARProcessor.from_pretrained(tmp_path)


def cut_off(folder):
    (folder / "voices" / "ada.wav").write_bytes((folder / "voices" / "ada.wav").read_bytes()[:-2])


def swapped(folder):
    shutil.copy(folder / "voices" / "bob-2.wav", folder / "voices" / "ada.wav")


def entries(change):
    """A damage: other entries of voices in the configuration."""

    def damage(folder):
        path = folder / "processor_config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, "voices": change(config["voices"])}))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "voices" / "ada.wav").unlink(), "'ada' of .*: `voices/ada.wav` is missing. Fetch"),
        (lambda folder: shutil.rmtree(folder / "voices"), "`voices/ada.wav` is missing"),
        (cut_off, "'ada' of .*: `voices/ada.wav` is not the file that was saved.*`processor.add_voice`"),
        (swapped, "`voices/ada.wav` is not the file that was saved"),
        (entries(lambda voices: [*voices]), r"`voices` in the processor_config.json of .* is no mapping: \['ada'"),
        (entries(lambda voices: {**voices, "ada": "Hello!"}), "no `sha256` and `text` of it: 'Hello!'"),
        (entries(lambda voices: {**voices, "ada": {"text": "Hello!"}}), "no `sha256` and `text` of it"),
        (entries(lambda voices: {**voices, "ada": {**voices["ada"], "text": 7}}), "`voices/ada.wav`: `text` must be"),
        (entries(lambda voices: {"../../secret": voices["ada"]}), "a voice cannot be called '../../secret'"),
        (entries(lambda voices: {"Ada": voices["ada"]}), "a voice cannot be called 'Ada'"),
    ],
)
def test_a_damaged_folder_is_refused(reads_phonemes, tmp_path, damage, message):
    reads_phonemes.save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message):
        DiTARProcessor.from_pretrained(tmp_path)


def test_a_default_that_is_not_there_is_refused(reads_phonemes, tmp_path):
    reads_phonemes.default_voice = "eve"
    with pytest.raises(ValueError, match="`default_voice` is 'eve', but the voices are ada, bob-2"):
        reads_phonemes.save_pretrained(tmp_path)
    assert not (tmp_path / "processor_config.json").exists()
    with pytest.raises(ValueError, match="`default_voice` is 'eve'"):
        DiTARProcessor(reads_phonemes.feature_extractor, reads_phonemes.tokenizer, default_voice="eve")


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"voice": "eve"}, "`voice` is 'eve', but the voices are ada, bob-2. Pass a name, or 'random'"),
        ({"voice": "Ada"}, "`voice` is 'Ada'"),
        ({"voice": 7}, "`voice` is 7"),
        ({"voice": ["ada", "bob-2"]}, "`voice` has 2 rows and `text` has 1"),
        ({"voice": []}, "`voice` has 0 rows"),
        ({"voice": "ada", "prompt_audio": tone(1, 99), "prompt_text": "Hello!"}, "`voice` is 'ada', but a prompt is"),
        ({"voice": "ada", "prompt_text": "Hello!"}, "Pass one of them"),
        ({"voice": "random", "prompt_audio": tone(1, 99)}, "Pass one of them"),
        ({"text": "hello " * 1_200, "voice": "ada"}, "of the voice 'ada' has"),
        ({"text": "", "voice": "ada"}, r"`text\[0\]` has nothing to speak"),
    ],
)
def test_bad_input(processor, arguments, message):
    with pytest.raises(ValueError, match=message):
        processor(**{"text": "Hello!", "sampling_rate": RATE, **arguments})


def test_a_default_does_not_stand_in_for_half_a_prompt(reads_phonemes):
    reads_phonemes.default_voice = "ada"
    with pytest.raises(ValueError, match="without its recording"):
        reads_phonemes("Hello!", prompt_text="Hello!")


def test_a_processor_without_voices_says_so(tokenizers):
    with pytest.raises(ValueError, match="`voice` is 'ada', but there are no named voices"):
        DiTARProcessor(DiTARFeatureExtractor(), tokenizers["phonemes"])("Hello!", voice="ada")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "Eve"}, "a voice cannot be called 'Eve'"),
        ({"name": "random"}, "a voice cannot be called 'random'"),
        ({"audio": tone(0.1, 99)}, "`audio` lasts 0.10 seconds"),
        ({"audio": np.zeros(RATE, np.float32)}, "`audio` is silent"),
        ({"audio": 4 * tone(1, 99)}, "`audio` must lie in .* but peaks at 1.33"),
        ({"audio": "eve.wav"}, "`audio` is 'eve.wav', but there is no such file"),
        ({"sampling_rate": None}, "`sampling_rate` of `audio` is missing"),
        ({"text": "?!"}, "`text` has nothing to speak"),
        ({"text": None}, "`text` must be a string"),
        ({"language": "tlh"}, "`language` is 'tlh'"),
    ],
)
def test_recordings_that_will_not_do_as_a_voice(reads_phonemes, arguments, message):
    with pytest.raises(ValueError, match=message):
        reads_phonemes.add_voice(
            **{"name": "eve", "audio": tone(1, 99), "sampling_rate": RATE, "text": "Hello!", **arguments}
        )
    assert reads_phonemes.voices.keys() == {"ada", "bob-2"}
