"""The metrics as modules of evaluate, from the package and by their paths: the same results."""

import sys
from pathlib import Path
from types import SimpleNamespace

import evaluate
import numpy as np
import pytest
import soundfile

import ditar_hf
from ditar_hf.evaluation import speech_quality
from ditar_hf.evaluation.metrics import DNSMOS, UTMOS, SpeakerSimilarity, WordError
from ditar_hf.evaluation.speaker_encoders import SPEAKER_ENCODERS, SpeakerEncoder
from ditar_hf.evaluation.summary import NotMeasuredError

FOLDER = Path(ditar_hf.__file__).parent / "evaluation" / "metrics"
RATE = 24000
generator = np.random.default_rng(0)
LOUD, QUIET = (generator.normal(0, spread, RATE).astype(np.float32) for spread in (0.2, 0.01))
SILENCE = np.zeros(RATE, np.float32)


@pytest.fixture(params=["package", "path"])
def load(request):
    """The ways of loading a metric."""
    if request.param == "package":
        return lambda metric: metric()
    return lambda metric: evaluate.load(str(FOLDER / f"{_file_name(metric)}.py"))


def _file_name(metric):
    return metric.__module__.rsplit(".", 1)[-1]


@pytest.fixture
def paths(tmp_path):
    for name, samples in (("loud", LOUD), ("quiet", QUIET), ("silence", SILENCE)):
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE, subtype="FLOAT")
    return lambda *names: [str(tmp_path / f"{name}.wav") for name in names]


class TestWordError:
    predictions = ["one two three for", "", "no then one two"]
    references = ["One two, three four!", "Gone.", "Now then"]

    @pytest.mark.parametrize(
        ("protocol", "average", "rate"), [("seed-en", "utterance", 2.75 / 3), ("offline-en", "corpus", 5 / 7)]
    )
    def test_all_is_told(self, load, protocol, average, rate):
        result = load(WordError).compute(predictions=self.predictions, references=self.references, protocol=protocol)
        assert result.pop("word_error") == pytest.approx(rate)
        assert result.pop("recognizer") in ("whisper-large-v3", "pocketsphinx")
        assert result == {
            "substitutions": 2,
            "deletions": 1,
            "insertions": 2,
            "errors": 5,
            "units": 7,
            "per_utterance": [0.25, 1, 1.5],
            "protocol": protocol,
            "unit": "words",
            "average": average,
        }

    def test_batches_add_up(self, load):
        metric = load(WordError)
        metric.add(predictions=self.predictions[0], references=self.references[0])
        metric.add_batch(predictions=self.predictions[1:], references=self.references[1:])
        assert metric.compute(protocol="offline-en")["errors"] == 5

    def test_a_protocol_must_be_named_and_known(self, load):
        with pytest.raises(ValueError, match="`protocol` is missing. Name one of seed-en"):
            load(WordError).compute(predictions=["a"], references=["a"])
        with pytest.raises(ValueError, match="`protocol` 'mine' is not known"):
            load(WordError).compute(predictions=["a"], references=["a"], protocol="mine")


class TestSpeakerSimilarity:
    @pytest.fixture(autouse=True)
    def encoder(self, monkeypatch):
        """An encoder whose similarity is known: the angle is the loudness."""

        def embed(samples, sampling_rate):
            if not samples.any():
                raise NotMeasuredError("the recording is silent")
            loudness = np.abs(samples).max()
            return np.array([np.cos(loudness), np.sin(loudness)])

        stand_in = SpeakerEncoder("a stand-in", "nothing", lambda device: embed)
        monkeypatch.setitem(SPEAKER_ENCODERS, "stand-in", stand_in)

    def test_pairs_by_path(self, load, paths):
        result = load(SpeakerSimilarity).compute(
            predictions=paths("loud", "quiet", "silence"), references=paths("loud", "loud", "loud"), encoder="stand-in"
        )
        assert result["per_utterance"][0] == pytest.approx(1) and result["per_utterance"][1] < 0.99
        assert result["per_utterance"][2] is None and result["not_measured"] == {"the recording is silent": 1}
        assert result["speaker_similarity"] == pytest.approx(np.mean(result["per_utterance"][:2]))
        assert result["encoder"] == "stand-in"

    def test_arrays_and_paths_give_the_same(self, load, paths):
        arrays = {"predictions": [LOUD, QUIET], "references": [QUIET, QUIET]}
        files = {"predictions": paths("loud", "quiet"), "references": paths("quiet", "quiet")}
        mixed = {"predictions": [LOUD, QUIET], "references": paths("quiet", "quiet")}
        given = [{**arrays, "sampling_rate": RATE}, files, {**mixed, "sampling_rate": RATE}]
        results = [load(SpeakerSimilarity).compute(**columns, encoder="stand-in") for columns in given]
        for result in results[1:]:
            assert result["per_utterance"] == pytest.approx(results[0]["per_utterance"])

    def test_bad_input_is_refused(self, load, paths):
        with pytest.raises(ValueError, match="`sampling_rate` is missing"):
            load(SpeakerSimilarity).compute(predictions=[LOUD], references=[LOUD], encoder="stand-in")
        with pytest.raises(ValueError, match="nothing.wav' cannot be read as audio"):
            load(SpeakerSimilarity).compute(predictions=paths("nothing"), references=paths("loud"), encoder="stand-in")
        with pytest.raises(NotMeasuredError, match="the recording is silent"):
            load(SpeakerSimilarity).compute(predictions=paths("silence"), references=paths("loud"), encoder="stand-in")
        with pytest.raises(NotMeasuredError, match="wavlm-large-sv"):
            load(SpeakerSimilarity).compute(
                predictions=paths("loud"), references=paths("loud"), encoder="wavlm-large-sv"
            )


class TestPredictedQuality:
    def test_dnsmos_is_that_of_the_function(self, load, paths):
        result = load(DNSMOS).compute(predictions=paths("loud"))
        assert result["per_utterance"] == [pytest.approx(speech_quality.dnsmos_overall(LOUD, RATE))]
        assert result["dnsmos"] == result["per_utterance"][0] and "DNSMOS P.835" in result["model"]

    def test_utmos_is_that_of_its_package(self, load, monkeypatch):
        model = SimpleNamespace(score=lambda samples: samples.abs().mean()[None])
        package = SimpleNamespace(UTMOSScoreTorch=lambda device: model)
        monkeypatch.setitem(sys.modules, "utmos_pytorch", package)
        result = load(UTMOS).compute(predictions=[LOUD, LOUD * 2, LOUD[:10]], sampling_rate=16000)
        one, two, nothing = result["per_utterance"]
        assert one == pytest.approx(np.abs(LOUD).mean()) and two == pytest.approx(2 * one) and nothing is None
        assert result["utmos"] == pytest.approx(1.5 * one) and "UTMOS22" in result["model"]
        assert result["not_measured"] == {"the recording is shorter than 0.05 s": 1}

    @pytest.mark.parametrize(("metric", "package"), [(UTMOS, "utmos_pytorch"), (DNSMOS, "speechmos")])
    def test_without_its_package_it_is_not_measured(self, load, monkeypatch, metric, package):
        for name in (package, f"{package}.dnsmos"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(NotMeasuredError, match=f"{package} is not installed: pip install"):
            load(metric).compute(predictions=[LOUD], sampling_rate=RATE)


def test_metrics_combine(paths):
    both = evaluate.combine([str(FOLDER / "dnsmos.py"), str(FOLDER / "dnsmos.py")])
    result = both.compute(predictions=paths("loud"))
    assert result["dnsmos_0_dnsmos"] == result["dnsmos_1_dnsmos"]
