"""Laws of saved folders: each class says which file is none, and reads a folder inside another as it reads any."""

import shutil

import pytest
import torch

from ditar_hf import DiTARConfig, DiTARForTextToSpeech, DiTARProcessor, DiTARTokenizer, DiTARVAE
from ditar_hf.modeling.saved_folders_ditar import refuse_broken_json, refuse_missing_folder

LOADERS = {
    "config.json": [DiTARConfig, DiTARForTextToSpeech],
    "generation_config.json": [DiTARForTextToSpeech],
    "processor_config.json": [DiTARProcessor],
    "tokenizer_config.json": [DiTARProcessor, DiTARTokenizer],
    "vocab.json": [DiTARProcessor, DiTARTokenizer],
}


@pytest.fixture
def folder(save_tiny, tmp_path):
    return save_tiny(tmp_path / "models" / "tiny", DiTARTokenizer.from_texts(["The quick brown fox."]))


@pytest.mark.parametrize("content", ["[1]", "null", "5", '"text"', '{"cut": ', "", "\ufeff{}", "[" * 10**6])
@pytest.mark.parametrize("name", LOADERS)
def test_a_file_that_is_no_object_is_named(folder, name, content):
    (folder / name).write_text(content)
    for loader in LOADERS[name]:
        with pytest.raises(ValueError, match=f"tiny/{name}"):
            loader.from_pretrained(folder)


def test_a_file_that_is_no_text_is_named(folder):
    (folder / "config.json").write_bytes(b"\xff\x00")
    with pytest.raises(ValueError, match="config.json' is no JSON file"):
        DiTARForTextToSpeech.from_pretrained(folder)


def test_a_tokenizer_of_speech_too(make_model, tmp_path):
    make_model().vae.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="config.json' holds \\[]"):
        DiTARVAE.from_pretrained(tmp_path)


def test_a_folder_in_a_folder_is_read_as_any(folder):
    model = DiTARForTextToSpeech.from_pretrained(folder.parent, subfolder="tiny")
    for name, weight in DiTARForTextToSpeech.from_pretrained(folder).state_dict().items():
        assert torch.equal(model.state_dict()[name], weight)
    config = DiTARConfig.from_pretrained(folder.parent, subfolder="tiny")
    assert config.to_diff_dict() == DiTARConfig.from_pretrained(folder).to_diff_dict()
    (folder / "config.json").write_text("[]")
    for loader in (DiTARConfig, DiTARForTextToSpeech):
        with pytest.raises(ValueError, match="tiny/config.json' holds \\[]"):
            loader.from_pretrained(folder.parent, subfolder="tiny")


def test_a_folder_without_a_configuration_is_not_that_of_the_defaults(folder):
    (folder / "config.json").unlink()
    for loader in (DiTARConfig, DiTARForTextToSpeech):
        with pytest.raises(ValueError, match="has no config.json"):
            loader.from_pretrained(folder)


def test_what_is_not_there_or_no_folder_is_left_to_the_library(folder):
    refuse_broken_json(["nothing.json"], folder)
    refuse_broken_json(["config.json"], "org/name")
    refuse_missing_folder("org/name")
    refuse_missing_folder(folder)


@pytest.mark.parametrize("loader", [DiTARForTextToSpeech, DiTARProcessor, DiTARTokenizer, DiTARVAE])
def test_a_folder_that_is_not_there_is_named(folder, loader):
    shutil.rmtree(folder)
    for name in (folder, str(folder), "./nowhere"):
        with pytest.raises(ValueError, match="there is no folder"):
            loader.from_pretrained(name)
    with pytest.raises(ValueError, match="a folder or the name of a repository, got 5"):
        loader.from_pretrained(5)


def test_files_that_are_not_read_need_not_be_whole(folder, make_model, tmp_path):
    (folder / "model.safetensors.index.json").write_text("")
    config = DiTARConfig.from_pretrained(folder)
    (folder / "other.json").write_text((folder / "config.json").read_text())
    assert DiTARConfig.from_pretrained(folder, _configuration_file="other.json").to_dict() == config.to_dict()
    (folder / "config.json").write_text("[1]")
    assert isinstance(DiTARForTextToSpeech.from_pretrained(folder, config=config), DiTARForTextToSpeech)
    make_model().vae.save_pretrained(tmp_path / "vae")
    (tmp_path / "vae" / "generation_config.json").write_text("[1]")
    assert isinstance(DiTARVAE.from_pretrained(tmp_path / "vae"), DiTARVAE)


@pytest.mark.parametrize("name", [None, 5, True, "", b"tiny"])
def test_what_is_no_name_is_refused(name):
    for loader in (DiTARConfig, DiTARForTextToSpeech, DiTARProcessor, DiTARTokenizer):
        with pytest.raises(ValueError, match="a model is named by a folder or the name of a repository, got"):
            loader.from_pretrained(name)
    with pytest.raises(ValueError, match="got {}"):
        DiTARForTextToSpeech.from_pretrained("org/name", config={})


def test_a_name_that_nothing_has_is_neither_folder_nor_repository(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for loader in (DiTARForTextToSpeech, DiTARProcessor):
        with pytest.raises(OSError, match="there is no folder 'hub_card/tiny', and no .* of that name could be had"):
            loader.from_pretrained("hub_card/tiny")
