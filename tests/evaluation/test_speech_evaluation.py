"""An evaluation that was interrupted, shared or repeated gives what one in a single run gives."""

import json

import numpy as np
import pytest

from ditar_hf.evaluation.speech_evaluation import MODEL, SCORES_FILE, SpeechEvaluation
from ditar_hf.evaluation.speech_measures import Measure, load_measures
from ditar_hf.evaluation.speech_report import write_speech_report
from ditar_hf.evaluation.summary import NotMeasuredError
from ditar_hf.evaluation.test_sets import TestItem

RATE = 8000
ITEMS = [TestItem(str(index), f"text <{index}>") for index in range(5)]
ABOUT = {
    "command": "ditar evaluate",
    "environment": {"date": "today", "device": "cpu", "device_name": None, "cpu": "c", "threads": 1}
    | {"packages": {"torch": "2"}},
}


def synthesize(item, seed):
    """Noise by the seed; the third item never stops."""
    return np.random.default_rng(seed).normal(0, 0.1, RATE).clip(-1, 1), RATE, item.id == "3"


def level(item, waveform, sampling_rate):
    return {"value": float(np.abs(waveform).mean()), "weight": 1, "transcript": f"<b>{item.id}</b>"}


def nothing(item, waveform, sampling_rate):
    raise NotMeasuredError("there is no such model")


MEASURES = [Measure("level, of tests", "", "lower", level), Measure("taste", "points", "higher", nothing)]


def evaluate(folder, stop_after=None, num_processes=1):
    calls = []

    def counted(item, seed):
        if len(calls) == stop_after:
            raise KeyboardInterrupt
        calls.append(item.id)
        return synthesize(item, seed)

    evaluation = SpeechEvaluation(folder, ITEMS, {"model": "m"})
    evaluation.begin()
    for index in range(num_processes):
        evaluation.synthesize(counted, index, num_processes)
    return evaluation, calls


def sounds(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / MODEL).iterdir())}


def test_interrupted_and_shared_equal_a_single_run(tmp_path):
    whole, calls = evaluate(tmp_path / "whole")
    assert calls == [item.id for item in ITEMS] and len(sounds(tmp_path / "whole")) == 6
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path / "cut", stop_after=2)
    cut, calls = evaluate(tmp_path / "cut")
    assert calls == ["2", "3", "4"]
    shared, _ = evaluate(tmp_path / "shared", num_processes=3)
    assert sounds(tmp_path / "whole") == sounds(tmp_path / "cut") == sounds(tmp_path / "shared")
    assert whole.score(MEASURES) == cut.score(MEASURES)
    assert whole.run_aways == cut.run_aways == shared.run_aways == ["3"]


def test_items_have_different_noise(tmp_path):
    evaluate(tmp_path)
    assert len(set(sounds(tmp_path).values())) == 6  # five and the empty mark of the one that ran away


def test_scores_that_are_there_are_kept(tmp_path):
    evaluation, _ = evaluate(tmp_path)
    first = evaluation.score(MEASURES)
    file = tmp_path / SCORES_FILE
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:3]) + lines[3][:10])  # a kill in the middle of a line
    measured = []

    def noted(item, *audio):
        measured.append(item.id)
        return level(item, *audio)

    again = evaluation.score([Measure("level, of tests", "", "lower", noted), MEASURES[1]])
    kept = sum("not_measured" not in json.loads(line) for line in lines[:3])
    assert len(measured) == len(ITEMS) - kept and 0 < kept < len(ITEMS)
    by_key = [{(s["row"], s["id"], s["measure"]): s for s in scores} for scores in (first, again)]
    assert by_key[0] == by_key[1]


def test_a_measure_that_cannot_be_had_is_listed_and_others_go_on(tmp_path):
    evaluation, _ = evaluate(tmp_path)
    scores = evaluation.score(MEASURES)
    table = write_speech_report(evaluation, scores, MEASURES, ABOUT)
    assert "| not measured |" in table and "%" in table
    text = (tmp_path / "report.md").read_text()
    assert "Not measured, taste, model, 5 items: there is no such model." in text
    assert "1 ran into the limit of their length: 3." in text
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["rows"]["model"]["taste"]["not_measured"] == {"there is no such model": 5}
    page = (tmp_path / "index.html").read_text()
    assert page.count("<audio") == len(ITEMS) and "<b>0</b>" not in page and "text &lt;0&gt;" in page


def test_recordings_stand_beside_the_model(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "a.wav", np.full(RATE, 0.25), RATE)
    items = [TestItem("1", "text", target_audio=tmp_path / "a.wav"), TestItem("2", "text")]
    evaluation = SpeechEvaluation(tmp_path / "out", items, {})
    evaluation.begin()
    evaluation.synthesize(synthesize)
    evaluation.add_bounds(lambda waveform, sampling_rate: (waveform / 2, sampling_rate))
    assert evaluation.rows == ["model", "resynthesis", "recording"]
    summary = evaluation.summary(evaluation.score(MEASURES), MEASURES)
    means = {row: cells["level, of tests"]["mean"] for row, cells in summary.items()}
    assert means["recording"] == pytest.approx(0.25, abs=1e-3) == pytest.approx(2 * means["resynthesis"], abs=1e-3)


def test_other_settings_are_refused(tmp_path):
    evaluate(tmp_path / "one")
    with pytest.raises(ValueError, match="holds an evaluation with another `model`"):
        SpeechEvaluation(tmp_path / "one", ITEMS, {"model": "other"})
    for others in (ITEMS[1:], [TestItem("0", "another text"), *ITEMS[1:]]):
        with pytest.raises(ValueError, match="another `items`"):
            SpeechEvaluation(tmp_path / "one", others, {"model": "m"})
    with pytest.raises(ValueError, match="another `seed`"):
        SpeechEvaluation(tmp_path / "one", ITEMS, {"model": "m"}, seed=1)
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary" / "page.txt").touch()
    with pytest.raises(ValueError, match="that is no evaluation"):
        SpeechEvaluation(tmp_path / "diary", ITEMS, {"model": "m"})


def test_an_empty_transcript_is_all_wrong(monkeypatch):
    from ditar_hf.evaluation import speech_measures

    monkeypatch.setattr(speech_measures, "load_recognizer", lambda name, device: lambda waveform, rate: "")
    measure = load_measures("offline-en", "resemblyzer")[0]
    assert measure.measure(TestItem("1", "three words here"), np.zeros(RATE), RATE)["value"] == 1.0
    with pytest.raises(NotMeasuredError, match="no words"):
        measure.measure(TestItem("1", "…"), np.zeros(RATE), RATE)


def test_the_names_of_measures_tell_protocols_apart():
    names = [load_measures(name, "resemblyzer")[0].name for name in ("seed-en", "librispeech-pc", "offline-en")]
    assert len(set(names)) == 3 and "seed-en" in names[0]
