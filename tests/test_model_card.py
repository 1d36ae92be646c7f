"""A card says what the folder and the reports say, in a form that the Hub's tools read back, and no more."""

import ast
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from ditar_hf import DiTARProcessor, DiTARTokenizer, DiTARVAE
from ditar_hf.evaluation.speech_evaluation import SpeechEvaluation
from ditar_hf.evaluation.speech_measures import Measure
from ditar_hf.evaluation.speech_report import write_speech_report
from ditar_hf.evaluation.summary import NotMeasuredError
from ditar_hf.evaluation.test_sets import TestItem
from ditar_hf.evaluation.vae_evaluation import ClipResult, VAEEvaluation
from ditar_hf.evaluation.vae_metrics import METRICS
from ditar_hf.evaluation.vae_report import environment, file_sums, write_report
from ditar_hf.model_card import TrainingData, model_card

CARDS = Path(__file__).resolve().parents[1] / "hub_cards"
RATE = 8000
NAME = "somebody/a-voice"


@pytest.fixture
def folder(save_tiny, tmp_path):
    """A tiny model of two languages, with two voices of which `b` is the default."""
    path = save_tiny(tmp_path / "model", DiTARTokenizer.from_texts({"en": ["Good morning."], "de": ["Guten Tag!"]}))
    processor = DiTARProcessor.from_pretrained(path)
    for name in ("a", "b"):
        processor.add_voice(name, np.random.default_rng(0).normal(0, 0.1, 24_000), 24_000, "Good morning.")
    processor.default_voice = "b"
    processor.save_pretrained(path)
    return path


@pytest.fixture
def vae_folder(make_vae_config, tmp_path):
    DiTARVAE(make_vae_config()).save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


def nothing(item, waveform, sampling_rate):
    raise NotMeasuredError("there is no such model")


MEASURES = [
    Measure("error of words, offline-en (r, of the corpus)", "", "lower", lambda *_: {"value": 0.25, "weight": 2}),
    Measure("likeness to the prompt, resemblyzer", "cosine", "higher", lambda *_: {"value": 0.5, "weight": 1}),
    Measure("naturalness, UTMOS", "1 to 5", "higher", nothing),
    Measure("taste | of lemons", "points", "higher", lambda *_: {"value": 7.125, "weight": 1}),
]


@pytest.fixture
def speech_report(folder, tmp_path):
    """What `ditar evaluate` leaves: three items, of which one has a recording and one never stops."""
    noise = np.random.default_rng(0).normal(0, 0.1, RATE)
    soundfile.write(tmp_path / "target.wav", noise, RATE)
    items = [TestItem(str(index), "text") for index in range(2)]
    items.append(TestItem("2", "text", target_audio=tmp_path / "target.wav"))

    def write(out="report", temperature=0.5, model=folder):
        settings = {"model": str(model), "set": "folder", "list": "list.csv", "language": None}
        settings["generation"] = {"temperature": temperature}
        evaluation = SpeechEvaluation(tmp_path / out, items, settings)
        evaluation.begin()
        evaluation.synthesize(lambda item, seed: (noise, RATE, item.id == "0"))
        evaluation.add_bounds(lambda waveform, sampling_rate: (waveform, sampling_rate))
        machine = environment(torch.device("cpu"))
        about = {"command": "ditar evaluate …", "environment": machine, "model": {"sha256": file_sums(str(model))}}
        write_speech_report(evaluation, evaluation.score(MEASURES), MEASURES, about)
        return tmp_path / out

    return write


def write_vae_report(out, vae_folder):
    def clip(identifier, **values):
        missing = dict.fromkeys(METRICS.keys() - values.keys(), "librosa is not installed")
        return ClipResult(identifier, 1.5, None, values, dict.fromkeys(values, 1.0), missing)

    out.mkdir()
    settings = {"command": "ditar evaluate-vae …", "environment": environment(torch.device("cpu")), "data": "a/speech"}
    settings["model"] = {"name": str(vae_folder), "sha256": file_sums(str(vae_folder))}
    write_report(out, VAEEvaluation([clip("a", si_sdr=10.0, mel_distance=0.5), clip("b", si_sdr=20.0)], []), settings)
    return out


def read_back(card, tmp_path):
    """The card as the Hub's tools read its file."""
    card.save(tmp_path / "README.md")
    loaded = ModelCard.load(tmp_path / "README.md")
    assert loaded.data.to_dict() == card.data.to_dict()
    return loaded


def test_facts_are_those_of_the_folder(folder, tmp_path):
    card = read_back(model_card(folder, NAME, license="cc0-1.0", base_model="somebody/base"), tmp_path)
    assert card.data.language == ["en", "de"] and card.data.license == "cc0-1.0"
    assert card.data.pipeline_tag == "text-to-speech" and card.data.library_name == "transformers"
    assert card.data.base_model == "somebody/base" and "huggingface.co/somebody/base" in card.text
    assert "Its voices are `b`, `a`:" in card.text and f'model="{NAME}"' in card.text
    assert "consent" in card.text and "# a-voice\n" in card.text


def test_what_is_not_known_is_not_there(folder, tmp_path):
    card = read_back(model_card(folder, NAME), tmp_path)
    header = card.data.to_dict().keys()
    assert not header & {"license", "model-index", "metrics", "datasets", "base_model"}
    for word in ("Figures", "trained on", "trust_remote_code", "None", "undefined", "{{", "{%"):
        assert word not in card.text.replace("None was stated for these weights", "")
    assert "None was stated for these weights" in card.text


def test_figures_are_those_of_the_report(folder, speech_report, tmp_path):
    card = read_back(model_card(folder, NAME, reports=[speech_report()]), tmp_path)
    results = {result.metric_type: result for result in card.data.eval_results}
    assert {kind: result.metric_value for kind, result in results.items()} == {
        "wer": 0.25,
        "speaker_similarity": 0.5,
        "taste_of_lemons": 7.125,
    }
    assert card.data.metrics == sorted(results)
    wer = results["wer"]
    assert (wer.task_type, wer.dataset_type, wer.dataset_name) == ("text-to-speech", "folder", "list.csv")
    assert wer.metric_args["interval_95"] == [0.25, 0.25] and wer.metric_args["num_items"] == 3
    assert wer.metric_args["temperature"] == 0.5 and wer.metric_args["seed"] == 0
    assert results["speaker_similarity"].metric_args["unit"] == "cosine"
    # a line for each, with the bounds beside the model; nothing of what was not measured
    assert "| measure | model | resynthesis | recording |" in card.text and "UTMOS" not in card.text
    line = next(line for line in card.text.splitlines() if "error of words" in line)
    assert line.endswith("| 25.0% [25.0%, 25.0%] | 25.0% | 25.0% |")
    assert r"| taste \| of lemons (points; higher is better) | 7.125 [7.125, 7.125] |" in card.text
    assert "3 items, of which 1 ran into the limit" in card.text and "`ditar evaluate …`" in card.text


def test_model_index_is_read_back_the_same(folder, speech_report):
    card = model_card(folder, NAME, reports=[speech_report(), speech_report("cold", temperature=0.0)])
    name, results = model_index_to_eval_results(card.data.to_dict()["model-index"])
    assert name == "a-voice" and len(results) == 6
    assert sorted(map(repr, results)) == sorted(map(repr, card.data.eval_results))
    assert {result.metric_args["temperature"] for result in results} == {0.5, 0.0}


def test_a_speech_tokenizer_has_a_card_of_its_own(vae_folder, tmp_path):
    report = write_vae_report(tmp_path / "report", vae_folder)
    card = read_back(model_card(vae_folder, "somebody/vae", license="mit", reports=[report]), tmp_path)
    assert "pipeline_tag" not in card.data.to_dict() and card.data.language is None
    values = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert values == {"si_sdr": 15.0, "mel_distance": 0.5}
    assert "| si_sdr (dB; higher is better) | 15 [10, 20] |" in card.text and "f0_rmse" not in card.text
    assert 'from_pretrained("somebody/vae")' in card.text


def test_data_is_named_with_its_terms(folder, tmp_path):
    data = [
        TrainingData("A|B", "CC BY 4.0", "2 hours,\ncut", hub_id="somebody/ab"),
        TrainingData("C", "CC0", url="https://example.org/c"),
    ]
    card = read_back(model_card(folder, NAME, data=data), tmp_path)
    assert card.data.datasets == ["somebody/ab"]
    assert r"| [A\|B](https://huggingface.co/datasets/somebody/ab) | 2 hours, cut | CC BY 4.0 |" in card.text
    assert "| [C](https://example.org/c) |  | CC0 |" in card.text


def blocks(card):
    return re.findall(r"^```python\n(.*?)^```$", card.text, flags=re.MULTILINE | re.DOTALL)


def test_the_package_is_not_needed_where_the_code_lies_beside(folder, vae_folder):
    for path in (folder, vae_folder):
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoConfig": "a.B"}}))
        _, without = blocks(model_card(path, NAME))
        assert "trust_remote_code=True" in without and "ditar_hf" not in without
        ast.parse(without)
        assert len(blocks(model_card(path, NAME, remote_code=False))) == 1


def test_its_code_runs(folder, vae_folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    for path in (folder, vae_folder):
        session = {}
        (block,) = blocks(model_card(path, path.name))
        exec(compile(block, "card", "exec"), session)
    assert session["reconstruction"].shape == (1, 24_000)


class TestBadInput:
    def test_figures_of_other_weights_are_refused(self, folder, speech_report, make_model):
        report = speech_report()
        make_model().save_pretrained(folder)
        with pytest.raises(ValueError, match="measured other weights than the `model.safetensors`"):
            model_card(folder, NAME, reports=[report])
        (folder / "model.safetensors").rename(folder / "other.safetensors")
        with pytest.raises(ValueError, match="measured `model.safetensors`, which is not in"):
            model_card(folder, NAME, reports=[report])

    def test_an_exported_configuration_is_no_other_model(self, folder, speech_report):
        report = speech_report()
        (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
        assert model_card(folder, NAME, reports=[report]).data.eval_results

    def test_the_same_twice_is_refused(self, folder, speech_report):
        report = speech_report()
        with pytest.raises(ValueError, match="two of them measure the same.*error of words"):
            model_card(folder, NAME, reports=[report, report / "report.json"])

    def test_a_report_of_another_kind_is_refused(self, folder, vae_folder, speech_report, tmp_path):
        report = write_vae_report(tmp_path / "vae-report", vae_folder)
        with pytest.raises(ValueError, match="another kind of model. Pass one of `ditar evaluate`"):
            model_card(folder, NAME, reports=[report])
        with pytest.raises(ValueError, match="another kind of model. Pass one of `ditar evaluate-vae`"):
            model_card(vae_folder, NAME, reports=[speech_report()])

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"rows": {}}', '{"metrics": 3}', "\xff"])
    def test_what_is_no_report_is_refused(self, folder, tmp_path, content):
        (tmp_path / "report.json").write_text(content, encoding="latin-1")
        with pytest.raises(ValueError, match="`reports`: .*report.json"):
            model_card(folder, NAME, reports=[tmp_path / "report.json"])

    def test_a_missing_report_is_refused(self, folder, tmp_path):
        with pytest.raises(ValueError, match="`reports`: .*cannot be read"):
            model_card(folder, NAME, reports=[tmp_path / "nowhere.json"])

    def test_another_model_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="`folder`: .*config.json' cannot be read"):
            model_card(tmp_path, NAME)
        (tmp_path / "config.json").write_text('{"model_type": "llama"}')
        with pytest.raises(ValueError, match="of the type 'llama'.*ditar or ditar_vae"):
            model_card(tmp_path, NAME)
        (tmp_path / "config.json").write_text('{"model_type": "ditar"}')
        with pytest.raises(ValueError, match="holds no weights"):
            model_card(tmp_path, NAME)

    @pytest.mark.parametrize("name", ["a b", 'a"; import os; "', "a/b/c", "-a", "a\nb"])
    def test_a_name_that_cannot_be_one_is_refused(self, folder, name):
        with pytest.raises(ValueError):
            model_card(folder, name)


@pytest.mark.parametrize("name", ["ditar-tiny-en", "ditar-vae-tiny"])
def test_cards_in_the_repository_are_cards(name):
    card = ModelCard.load(CARDS / name / "README.md")
    assert card.data.license == "apache-2.0" and card.data.library_name == "transformers"
    assert card.text.strip().startswith(f"# {name}")


def test_figures_in_the_header_of_the_shipped_card_stand_in_its_text():
    card = ModelCard.load(CARDS / "ditar-tiny-en" / "README.md")
    written = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert written.keys() == {"wer", "dnsmos"}
    assert f"{written['wer']:.1%} [" in card.text and f"DNSMOS {written['dnsmos']:.2f} [" in card.text
