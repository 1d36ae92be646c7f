"""Laws of `DiTARProcessor`: the sequence it lays out, rows and batches, the stock pipeline, and what it refuses."""

import copy
import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoFeatureExtractor, AutoProcessor, AutoTokenizer, PreTrainedTokenizerFast
from transformers.feature_extraction_utils import BatchFeature
from transformers.pipelines.base import pad_collate_fn
from transformers.pipelines.text_to_audio import TextToAudioPipeline

from ditar_hf.modeling.configuration_ditar import DiTARConfig
from ditar_hf.modeling.feature_extraction_ditar import DiTARFeatureExtractor
from ditar_hf.modeling.processing_ditar import DiTARProcessor
from ditar_hf.modeling.tokenization_ditar import DiTARTokenizer

RATE = 24_000
PATCH = 2_400
TEXTS = ["The quick brown fox.", "Hello!", "Who jumps over the lazy dog, please?"]


def voice(seconds: float, rate: int = RATE) -> np.ndarray:
    return np.sin(2 * np.pi * 180 * np.arange(round(seconds * rate)) / rate).astype(np.float32) / 2


@pytest.fixture(scope="module")
def processor() -> DiTARProcessor:
    tokenizer = DiTARTokenizer.from_texts({"en": TEXTS, "de": ["Guten Tag, wie geht es?"]})
    return DiTARProcessor(DiTARFeatureExtractor(), tokenizer)


def assert_equal(one: BatchFeature, other: BatchFeature):
    assert list(one) == list(other)
    assert all(torch.equal(one[key], other[key]) for key in one)


# The sequence


def test_a_text_becomes_its_phonemes_and_audio_bos(processor):
    inputs = processor(TEXTS[0])
    assert list(inputs) == ["input_ids", "attention_mask"]
    ids = inputs["input_ids"][0].tolist()
    assert ids == [*processor.tokenizer(TEXTS[0])["input_ids"], processor.tokenizer.audio_bos_token_id]
    assert processor.decode(ids, skip_special_tokens=True) == "ðə kwˈɪk bɹˈaʊn fˈɑːks."
    assert inputs["attention_mask"].tolist() == [[1] * len(ids)]


def test_a_prompt_adds_its_text_and_one_placeholder_per_patch(processor):
    inputs = processor(TEXTS[0], prompt_audio=voice(0.75), prompt_text=TEXTS[1], sampling_rate=RATE)
    assert list(inputs) == processor.model_input_names
    assert inputs["prompt_values"].shape == inputs["prompt_mask"].shape == (1, 7 * PATCH)
    assert inputs["prompt_values"].dtype == torch.float32
    joined = processor.tokenizer.phonemize(f"{TEXTS[1]} {TEXTS[0]}")
    expected = joined + "<audio_bos>" + "<audio_patch>" * 7
    assert processor.batch_decode(inputs["input_ids"]) == [expected]


def test_a_batch_equals_its_rows_and_is_padded_on_the_left(processor):
    prompts, transcripts = [voice(0.5), None, voice(1.13)], ["Hello!", None, "The fox."]
    batch = processor(TEXTS, prompt_audio=prompts, prompt_text=transcripts, sampling_rate=RATE)
    for index, text in enumerate(TEXTS):
        row = processor(text, prompt_audio=prompts[index], prompt_text=transcripts[index], sampling_rate=RATE)
        for key, mask in (("input_ids", "attention_mask"), ("prompt_values", "prompt_mask")):
            kept = batch[mask][index].bool()
            assert torch.equal(batch[key][index][kept], row[key][0] if key in row else torch.zeros(0))
            assert not (kept[:-1] & ~kept[1:]).any()  # 1 never comes before 0
    assert not batch["prompt_mask"][1].any() and not batch["prompt_values"][1].any()
    placeholders = (batch["input_ids"] == processor.tokenizer.audio_patch_token_id).sum(1)
    assert torch.equal(placeholders * PATCH, batch["prompt_mask"].sum(1))


def test_files_bytes_and_what_datasets_gives_are_the_same_prompt(processor, tmp_path):
    path = tmp_path / "voice.flac"
    soundfile.write(path, voice(0.75), RATE)
    samples = soundfile.read(path, dtype="float32")[0]
    decoded = SimpleNamespace(data=torch.from_numpy(samples)[None], sample_rate=RATE)
    forms = {
        "path": path,
        "str": str(path),
        "bytes": path.read_bytes(),
        "decoded": {"path": "voice.flac", "array": samples, "sampling_rate": RATE},
        "stored": {"path": "only a name", "bytes": path.read_bytes()},
        "linked": {"path": str(path), "bytes": None},
        "decoder": SimpleNamespace(get_all_samples=lambda: decoded),
    }
    expected = processor("Hello!", prompt_audio=samples, prompt_text="The fox.", sampling_rate=RATE)
    for form in forms.values():
        assert_equal(processor("Hello!", prompt_audio=form, prompt_text="The fox."), expected)
    batch = processor(["Hello!"] * len(forms), prompt_audio=list(forms.values()), prompt_text="The fox.")
    assert torch.equal(batch["prompt_values"], expected["prompt_values"].expand(len(forms), -1))
    with pytest.raises(ValueError, match="has the sampling rate 24000, but `sampling_rate` is 16000"):
        processor("Hello!", prompt_audio=path, prompt_text="The fox.", sampling_rate=16_000)


def test_a_prompt_may_be_in_another_language_than_the_text(processor):
    prompt = {"prompt_audio": voice(0.75), "prompt_text": "The fox.", "sampling_rate": RATE}
    ids = processor("Guten Tag!", language="de", prompt_language="en-us", **prompt)["input_ids"][0]
    phonemes = [processor.tokenizer.phonemize("The fox."), processor.tokenizer.phonemize("Guten Tag!", language="de")]
    assert processor.decode(ids, skip_special_tokens=True) == " ".join(phonemes)
    assert processor.decode(processor("Guten Tag!", language="de", **prompt)["input_ids"][0]) != processor.decode(ids)


def test_one_prompt_serves_all_rows(processor):
    one = processor(TEXTS, prompt_audio=voice(0.6), prompt_text="Hello!", sampling_rate=RATE)
    each = processor(TEXTS, prompt_audio=[voice(0.6)] * 3, prompt_text=["Hello!"] * 3, sampling_rate=RATE)
    assert_equal(one, each)


def test_rows_without_any_prompt_have_no_prompt_keys(processor):
    assert_equal(processor(TEXTS, prompt_audio=[None] * 3, prompt_text=[None] * 3), processor(TEXTS))


def test_dictionaries_of_datasets_carry_their_rate(processor):
    plain = processor("Hello!", prompt_audio=voice(1.0, 16_000), prompt_text="The fox.", sampling_rate=16_000)
    entry = {"array": voice(1.0, 16_000), "sampling_rate": 16_000, "path": None}
    assert_equal(processor("Hello!", prompt_audio=entry, prompt_text="The fox."), plain)
    assert_equal(processor(["Hello!"], prompt_audio=[entry], prompt_text=["The fox."]), plain)


def test_forms_of_output(processor):
    arrays = processor(TEXTS, prompt_audio=voice(0.6), prompt_text="Hello!", sampling_rate=RATE, return_tensors="np")
    assert all(isinstance(value, np.ndarray) for value in arrays.values())
    lists = processor(TEXTS, return_tensors=None, padding=False)
    assert [len(row) for row in lists["input_ids"]] == [
        len(processor.tokenizer(text)["input_ids"]) + 1 for text in TEXTS
    ]
    assert isinstance(processor(TEXTS), BatchFeature)


def test_language_and_phoneme_strings(processor):
    german = processor("Guten Tag!", language="de")
    assert processor.decode(german["input_ids"][0], skip_special_tokens=True) == "ɡˈuːtən tˈɑːk!"
    assert_equal(processor("ɡˈuːtən tˈɑːk!", phonemize=False), german)


def test_prompts_stay_in_float32(processor):
    inputs = processor("Hello!", prompt_audio=voice(0.6), prompt_text="The fox.", sampling_rate=RATE)
    before = inputs["prompt_values"].clone()
    inputs["other"] = torch.zeros(3)
    assert inputs.to("cpu", dtype=torch.bfloat16) is inputs
    assert inputs["other"].dtype == torch.bfloat16 and inputs["input_ids"].dtype == torch.int64
    assert torch.equal(inputs["prompt_values"], before) and before.dtype == torch.float32
    assert inputs.to("meta")["prompt_values"].device.type == "meta"


# The stock pipeline


def preprocess(processor, text, dtype=torch.float32, **preprocess_params):
    """What `TextToAudioPipeline` does with a text before `generate`."""
    model = SimpleNamespace(config=SimpleNamespace(model_type="ditar"), dtype=dtype)
    pipeline = SimpleNamespace(model=model, processor=processor, tokenizer=processor.tokenizer)
    return TextToAudioPipeline.preprocess(pipeline, text, **preprocess_params)


def test_the_stock_pipeline_reaches_the_processor(processor):
    assert_equal(preprocess(processor, "Hello!"), processor("Hello!"))
    assert_equal(preprocess(processor, tuple(TEXTS)), processor(TEXTS))
    prompt = {"prompt_audio": voice(0.6), "prompt_text": "The fox.", "sampling_rate": RATE}
    inputs = preprocess(processor, "Hello!", dtype=torch.bfloat16, **prompt)
    assert_equal(inputs, processor("Hello!", **prompt))


def test_the_stock_pipeline_can_batch(processor):
    prompt = {"prompt_audio": voice(0.6), "prompt_text": "The fox.", "sampling_rate": RATE}
    for params in ({}, prompt):
        items = [preprocess(processor, text, **params) for text in TEXTS]
        batch = pad_collate_fn(processor.tokenizer, None)(items)
        together = processor(TEXTS, **params)
        assert batch.keys() == dict(together).keys()
        assert all(torch.equal(batch[key], together[key]) for key in batch)
        pad_collate_fn(processor.tokenizer, processor.feature_extractor)(items)


# Saving


def test_saved_equals_loaded(processor, tmp_path):
    saved = DiTARProcessor(processor.feature_extractor, processor.tokenizer, max_text_length=77)
    saved.save_pretrained(tmp_path)
    AutoTokenizer.register(DiTARConfig, slow_tokenizer_class=DiTARTokenizer, exist_ok=True)
    AutoFeatureExtractor.register(DiTARConfig, DiTARFeatureExtractor, exist_ok=True)
    AutoProcessor.register(DiTARConfig, DiTARProcessor, exist_ok=True)
    for loaded in (DiTARProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is DiTARProcessor
        assert loaded.max_text_length == 77
        assert loaded.to_dict() == saved.to_dict()
        prompt = {"prompt_audio": voice(0.6), "prompt_text": "Hello!", "sampling_rate": RATE}
        assert_equal(loaded(TEXTS[:2], **prompt), saved(TEXTS[:2], **prompt))
    config = json.loads((tmp_path / "processor_config.json").read_text())
    assert config["feature_extractor"]["sampling_rate"] == RATE and config["max_text_length"] == 77


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda processor: pickle.loads(pickle.dumps(processor))])
def test_copies_are_equal(processor, duplicate):
    assert_equal(duplicate(processor)(TEXTS), processor(TEXTS))


def test_audio_is_written(processor, tmp_path):
    for audio in (torch.from_numpy(voice(0.1)), voice(0.1), torch.from_numpy(voice(0.1)).bfloat16()):
        processor.save_audio(audio, tmp_path / "speech.wav")
        samples, rate = soundfile.read(tmp_path / "speech.wav")
        assert rate == RATE and np.allclose(samples, voice(0.1), atol=2e-3)
    processor.save_audio(voice(0.1), tmp_path / "speech.wav", sampling_rate=8_000)
    assert soundfile.info(tmp_path / "speech.wav").samplerate == 8_000
    assert [path.name for path in tmp_path.iterdir()] == ["speech.wav"]


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3", "WAV"])
def test_the_suffix_decides_on_the_format(processor, tmp_path, suffix):
    processor.save_audio(voice(0.5), tmp_path / f"speech.{suffix}")
    info = soundfile.info(tmp_path / f"speech.{suffix}")
    assert info.samplerate == RATE and abs(info.duration - 0.5) < 0.1
    assert info.format == suffix.upper()


@pytest.fixture
def old_file(tmp_path):
    """A file that a failing `save_audio` must leave as it is, without another beside it."""
    path = tmp_path / "speech.wav"
    path.write_bytes(b"old")
    yield path
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"audio": torch.zeros(1, 100)}, r"`audio` must have shape \(num_samples,\)"),
        ({"audio": np.zeros(0)}, "`audio` must have shape .* hold a sample"),
        ({"audio": np.array([0.0, np.nan])}, "`audio` holds NaN"),
        ({"audio": torch.tensor([0.0, -torch.inf])}, "`audio` holds NaN or infinite"),
        ({"audio": 4 * voice(0.1)}, r"`audio` must lie in \[-1, 1\], but peaks at 2"),
        ({"audio": (30_000 * voice(0.1)).astype(np.int16)}, "`audio` must lie in"),
        ({"sampling_rate": 0}, "`sampling_rate` must be a positive whole number of hertz, got 0"),
        ({"sampling_rate": True}, "`sampling_rate` must be"),
        ({"sampling_rate": 24_000.5}, "`sampling_rate` must be"),
        ({"suffix": ".wave"}, "`path` must end in one of .wav, .flac, .ogg, .mp3, got .*speech.wave"),
        ({"suffix": ""}, "`path` must end in one of"),
    ],
)
def test_audio_that_is_not_written(processor, old_file, arguments, message):
    arguments = {"audio": voice(0.1), **arguments}
    path = old_file.with_suffix(arguments.pop("suffix", ".wav"))
    with pytest.raises(ValueError, match=message):
        processor.save_audio(path=path, **arguments)


def test_a_failed_write_leaves_the_old_file_and_no_other(processor, old_file, monkeypatch):
    def write_half(path, *arguments, **options):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(soundfile, "write", write_half)
    with pytest.raises(OSError, match="No space left"):
        processor.save_audio(voice(0.1), old_file)


def test_what_soundfile_cannot_write_is_an_oserror(processor, old_file):
    with pytest.raises(OSError, match="cannot write .*missing"):
        processor.save_audio(voice(0.1), old_file.parent / "missing" / "speech.wav")
    with pytest.raises(OSError, match="cannot write .*speech.mp3' at 7 Hz"):
        processor.save_audio(voice(0.1), old_file.with_suffix(".mp3"), sampling_rate=7)


# Letters instead of phonemes


@pytest.fixture(scope="module")
def letters() -> DiTARProcessor:
    """A processor with a tokenizer such as those of text language models."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator([*TEXTS, *TEXTS], trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    control_tokens = {"audio_bos_token": "<audio_bos>", "audio_patch_token": "<audio_patch>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, padding_side="left", **control_tokens)
    return DiTARProcessor(DiTARFeatureExtractor(), tokenizer)


def test_letters_are_read_as_they_are(letters, processor):
    assert processor.reads_phonemes and not letters.reads_phonemes
    inputs = letters(TEXTS)
    tokenizer = letters.tokenizer
    for ids, mask, text in zip(inputs["input_ids"], inputs["attention_mask"], TEXTS, strict=True):
        ids = ids[mask.bool()].tolist()
        assert ids == [*tokenizer(text)["input_ids"], tokenizer.audio_bos_token_id]
        assert tokenizer.decode(ids[:-1]) == text and len(ids) < len(text)
        assert mask.diff().ge(0).all()
    assert letters.tokenize_text(TEXTS[0]) == tokenizer(TEXTS[0])["input_ids"]
    german = "Schöne Grüße, 北京!"
    assert tokenizer.decode(letters.tokenize_text(german)) == german


def test_letters_of_prompt_and_text_are_read_in_one_go(letters):
    inputs = letters(TEXTS[0], prompt_audio=voice(0.75), prompt_text=TEXTS[1], sampling_rate=RATE)
    tokenizer = letters.tokenizer
    joined = tokenizer(f"{TEXTS[1]} {TEXTS[0]}")["input_ids"]
    patches = [tokenizer.audio_patch_token_id] * 7
    assert inputs["input_ids"][0].tolist() == [*joined, tokenizer.audio_bos_token_id, *patches]
    assert inputs["prompt_values"].shape == (1, 7 * PATCH)


def test_the_stock_pipeline_can_batch_letters(letters):
    items = [preprocess(letters, text) for text in TEXTS]
    batch, together = pad_collate_fn(letters.tokenizer, None)(items), letters(TEXTS)
    assert batch.keys() == dict(together).keys()
    assert all(torch.equal(batch[key], together[key]) for key in batch)


def test_a_processor_of_letters_is_saved(letters, tmp_path):
    letters.save_pretrained(tmp_path)
    AutoFeatureExtractor.register(DiTARConfig, DiTARFeatureExtractor, exist_ok=True)
    loaded = DiTARProcessor.from_pretrained(tmp_path)
    assert type(loaded.tokenizer) is type(letters.tokenizer) and loaded.tokenizer.padding_side == "left"
    assert_equal(loaded(TEXTS), letters(TEXTS))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "Hi <audio_bos>"}, "control token '<audio_bos>'"),
        ({"text": "Hi <pad> there"}, "control token '<pad>'"),
        ({"text": "?! …"}, "nothing to speak: '.*' holds no letter and no digit"),
        ({"text": "hi \ud800"}, "lone surrogate"),
        ({"text": "Hello!", "language": "en"}, "`language` is 'en', but this model reads letters"),
        ({"text": "həlˈoʊ", "phonemize": False}, "`phonemize` is False, but this model reads letters"),
        ({"text": "hello " * 3_400}, r"`text\[0\]` has \d{4,5} tokens, more than the 1000"),
    ],
)
def test_bad_input_of_letters(letters, arguments, message):
    with pytest.raises(ValueError, match=message):
        letters(**arguments)


@pytest.mark.parametrize("name", ["pad_token", "audio_bos_token", "audio_patch_token"])
def test_a_tokenizer_without_a_control_token_is_refused(letters, name):
    tokenizer = copy.deepcopy(letters.tokenizer)
    setattr(tokenizer, name, None)
    with pytest.raises(ValueError, match=f"`tokenizer` has no `{name}`"):
        DiTARProcessor(DiTARFeatureExtractor(), tokenizer)


# Bad input

PROMPT = {"prompt_audio": voice(1.0), "prompt_text": "The fox.", "sampling_rate": RATE}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": ""}, r"`text\[0\]` has nothing to speak: ''"),
        ({"text": "  \n"}, "nothing to speak"),
        ({"text": "?!…"}, "nothing to speak"),
        ({"text": "😀🎉"}, "nothing to speak: '😀🎉'"),
        ({"text": "\x00\x01"}, "nothing to speak"),
        ({"text": ["Hello!", ""]}, r"`text\[1\]` has nothing to speak"),
        ({"text": " ,", "phonemize": False}, "nothing to speak"),
        ({"text": "ʘʘ", "phonemize": False}, "no phoneme of the vocabulary"),
        ({"text": "hello " * 3_400}, r"`text\[0\]` has \d{5} tokens, more than the 1000.*Split it"),
        ({"text": "fˈɑːks " * 300, "phonemize": False}, "Split it"),
        ({"text": "Hi <audio_bos>", "phonemize": False}, "control token '<audio_bos>'"),
        ({"text": "Hi <audio_patch>", "phonemize": False}, "control token '<audio_patch>'"),
        ({"text": "hi \ud800"}, "lone surrogate"),
        ({"text": None}, "`text` must be a string or a list of strings"),
        ({"text": []}, "at least one entry"),
        ({"text": ["Hello!", None]}, r"`text\[1\]` must be a string, got NoneType"),
        ({"text": "Hello!", "language": "xx"}, "`language` is 'xx'"),
        (
            {"text": "Hello!", "prompt_audio": voice(1.0), "sampling_rate": RATE},
            "without its transcript.*`prompt_text`",
        ),
        ({"text": "Hello!", "prompt_text": "The fox."}, "without its recording.*`prompt_audio`"),
        (
            {"text": TEXTS, **PROMPT, "prompt_text": ["The fox.", None, "The fox."]},
            r"`prompt_audio\[1\]` comes without",
        ),
        ({"text": TEXTS, **PROMPT, "prompt_audio": [voice(1.0)]}, "`prompt_audio` has 1 rows and `text` has 3"),
        ({"text": TEXTS, **PROMPT, "prompt_text": ["The fox."] * 2}, "`prompt_text` has 2 rows"),
        ({"text": "Hello!", **PROMPT, "prompt_audio": []}, "`prompt_audio` has 0 rows"),
        ({"text": "Hello!", **PROMPT, "prompt_text": "…"}, r"`prompt_text\[0\]` has nothing to speak"),
        ({"text": "hello " * 150, **PROMPT, "prompt_text": "hello " * 100}, "together with the 499 of its prompt"),
        ({"text": "Hello!", **PROMPT, "sampling_rate": None}, r"`sampling_rate` of `prompt_audio\[0\]` is missing"),
        ({"text": "Hello!", **PROMPT, "sampling_rate": 96_000}, "lasts 0.25 seconds"),
        ({"text": "Hello!", **PROMPT, "prompt_audio": voice(0.02)}, "lasts 0.02 seconds"),
        ({"text": "Hello!", **PROMPT, "prompt_audio": np.zeros(600 * RATE)}, "lasts 600.00 seconds"),
        ({"text": "Hello!", **PROMPT, "prompt_audio": np.zeros(RATE)}, "silent"),
        ({"text": "Hello!", **PROMPT, "prompt_audio": np.full(RATE, np.nan)}, "NaN"),
        ({"text": "Hello!", **PROMPT, "prompt_audio": np.stack([voice(1.0)] * 2)}, "mono"),
        (
            {"text": "Hello!", **PROMPT, "prompt_audio": "voice.wav"},
            r"`prompt_audio\[0\]` is 'voice.wav', but there is no",
        ),
        (
            {"text": "Hello!", **PROMPT, "prompt_audio": [b"RIFF"]},
            "is 4 bytes, which cannot be read as audio.*Pass a WAV",
        ),
        ({"text": "Hello!", **PROMPT, "prompt_audio": {"samples": voice(1.0)}}, "without `array`.*without `bytes`"),
        ({"text": "Hello!", **PROMPT, "prompt_audio": {"array": None, "path": None}}, "without `array`"),
        (
            {"text": "Hello!", **PROMPT, "prompt_audio": {"array": voice(1.0)}, "sampling_rate": None},
            r"`sampling_rate` of `prompt_audio\[0\]` is missing",
        ),
        (
            {"text": "Hello!", **PROMPT, "prompt_audio": {"array": voice(1.0), "sampling_rate": 16_000}},
            "Leave `sampling_rate` out",
        ),
    ],
)
def test_bad_input(processor, arguments, message):
    with pytest.raises(ValueError, match=message):
        processor(**arguments)


def test_an_unknown_argument_is_refused(processor):
    with pytest.raises(TypeError, match="audio_prompt"):
        processor("Hello!", audio_prompt=voice(1.0))


def test_parts_must_fit(processor):
    with pytest.raises(ValueError, match="pads on the left"):
        DiTARProcessor(DiTARFeatureExtractor(padding_side="right"), processor.tokenizer)
    with pytest.raises(ValueError, match="`max_text_length`"):
        DiTARProcessor(processor.feature_extractor, processor.tokenizer, max_text_length=0)


def test_a_text_of_the_greatest_length_is_taken(processor):
    num_tokens = len(processor.tokenizer(TEXTS[0])["input_ids"])
    DiTARProcessor(processor.feature_extractor, processor.tokenizer, max_text_length=num_tokens)(TEXTS[0])
    with pytest.raises(ValueError, match="more than"):
        DiTARProcessor(processor.feature_extractor, processor.tokenizer, max_text_length=num_tokens - 1)(TEXTS[0])
