"""Laws of repositories: they load without the package as with it, and come back from the Hub as they went."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForTextToWaveform, AutoProcessor, pipeline

import ditar_hf
from ditar_hf import (
    DiTARForTextToSpeech,
    DiTARProcessor,
    DiTARScheduler,
    DiTARTextToSpeechPipeline,
    DiTARTokenizer,
    DiTARVAE,
)
from ditar_hf.hub import export

TESTS = Path(__file__).resolve().parent
TEXT = "The quick brown fox."
# Everything of the package must come out of the folder: importing `ditar_hf`, or what else is named, fails.
BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""
SPEAK = """
import numpy as np
import torch
from transformers import AutoModelForTextToWaveform, AutoProcessor, pipeline

def speak(name, **kwargs):
    model = AutoModelForTextToWaveform.from_pretrained(name, **kwargs)
    processor = AutoProcessor.from_pretrained(name, **kwargs)
    inputs = processor("The quick brown fox.", voice="ada")
    settings = dict(temperature=1.0, num_inference_steps=2, max_new_tokens=3, min_new_tokens=3)
    return model.generate(**inputs, **settings, generator=torch.Generator().manual_seed(0)).audio[0].numpy()
"""


@pytest.fixture(scope="module")
def known() -> dict:
    return {}


@pytest.fixture
def folder(save_tiny, tmp_path_factory, known) -> Path:
    """A tiny model with a voice, as `save_pretrained` leaves it; made once, since no test changes it."""
    if "folder" not in known:
        tokenizer = DiTARTokenizer.from_texts({"en": [TEXT], "de": ["Guten Tag!"]})
        path = save_tiny(tmp_path_factory.mktemp("saved") / "tiny", tokenizer)
        processor = DiTARProcessor.from_pretrained(path)
        processor.add_voice("ada", np.sin(np.arange(20_000) / 20).astype(np.float32) / 2, 24_000, "The fox.")
        processor.save_pretrained(path)
        known["folder"] = path
    return known["folder"]


@pytest.fixture
def exported(folder, tmp_path_factory, known) -> Path:
    """The same, exported; made once."""
    if "exported" not in known:
        known["exported"] = export(folder, tmp_path_factory.mktemp("exported") / "tiny")
    return known["exported"]


@pytest.fixture
def speech(folder) -> np.ndarray:
    """What the classes of the package say."""
    namespace = {}
    exec(SPEAK, namespace)
    return namespace["speak"](str(folder))


@pytest.fixture
def run(tmp_path):
    """Runs a script in a process of its own, with caches of its own; returns what it printed."""

    def run(script, *arguments, blocked=("ditar_hf",), hub=None, fails=False) -> str:
        code = BLOCK.format(blocked=set(blocked) or "set()") + SPEAK + textwrap.dedent(script)
        environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_dummy"}
        environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # on which the last bits depend
        if hub is not None:
            environment |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
            environment |= {"HF_DATASETS_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            env=environment,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout

    return run


@pytest.fixture
def hub():
    spec = importlib.util.spec_from_file_location("hub_stand_in", TESTS / "hub_stand_in.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.running() as hub:
        yield hub


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# The folder


def test_code_says_where_it_comes_from_and_what_it_needs(exported):
    files = sorted(exported.glob("*.py"))
    assert {"modeling_ditar.py", "processing_ditar.py", "scheduling_ditar.py", "pipeline_ditar.py"} <= {
        file.name for file in files
    }
    for file in files:
        lines = file.read_text().splitlines()
        assert lines[1] == "# SPDX-License-Identifier: Apache-2.0"
        assert re.search(rf"(modeling|pipelines)/{file.name} of ditar-hf {re.escape(ditar_hf.__version__)}", lines[3])
        for name in re.findall(r"^from \.(\w+) import", file.read_text(), flags=re.MULTILINE):
            assert (exported / f"{name}.py").is_file()
    needed = (exported / "requirements.txt").read_text()
    assert {"torch", "transformers", "diffusers", "phonemizer", "soundfile"} <= set(
        re.findall(r"^[\w-]+", needed, re.M)
    )
    assert "datasets" not in needed and "typer" not in needed


def test_a_second_export_is_the_same(exported, tmp_path):
    assert contents(export(exported, tmp_path / "tiny")) == contents(exported)


def test_weights_and_settings_are_those_of_the_model(folder, exported):
    assert (exported / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert (exported / "generation_config.json").read_bytes() == (folder / "generation_config.json").read_bytes()
    model = DiTARForTextToSpeech.from_pretrained(folder)
    scheduler = DiTARScheduler.from_pretrained(exported, subfolder="scheduler")
    settings = ("prediction_type", "start_timestep", "algorithm_type")
    assert all(scheduler.config[name] == model.noise_scheduler.config[name] for name in settings)
    assert contents(folder / "voices") == contents(exported / "voices")


def test_shards_are_copied_with_their_index(folder, tmp_path):
    model = DiTARForTextToSpeech.from_pretrained(folder)
    shutil.copytree(folder, tmp_path / "sharded")
    (tmp_path / "sharded" / "model.safetensors").unlink()
    model.save_pretrained(tmp_path / "sharded", max_shard_size=100_000)
    save_file({"a": torch.zeros(1)}, tmp_path / "sharded" / "other.safetensors")
    names = {path.name for path in export(tmp_path / "sharded", tmp_path / "out").glob("*.safetensors*")}
    assert "model.safetensors.index.json" in names and len(names) > 2 and "other.safetensors" not in names
    loaded = DiTARForTextToSpeech.from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in model.state_dict().items())


def test_an_index_that_names_files_elsewhere_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "changed")
    (tmp_path / "changed" / "model.safetensors").rename(tmp_path / "secret.safetensors")
    index = {"metadata": {}, "weight_map": {"stop_head.weight": "../secret.safetensors"}}
    (tmp_path / "changed" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="names '../secret.safetensors', no file beside it"):
        export(tmp_path / "changed", tmp_path / "out")


def test_with_the_package_it_is_a_folder_as_any_other(exported, speech, tmp_path):
    namespace = {}
    exec(SPEAK, namespace)
    np.testing.assert_array_equal(namespace["speak"](str(exported)), speech)
    model = AutoModelForTextToWaveform.from_pretrained(exported)
    assert type(model) is DiTARForTextToSpeech
    # what the package saves brings no code along, and does not say it did
    speak = pipeline("text-to-speech", model=str(exported), pipeline_class=DiTARTextToSpeechPipeline)
    speak.save_pretrained(tmp_path / "again")
    assert not [path for path, file in contents(tmp_path / "again").items() if b"auto_map" in file]
    assert type(AutoProcessor.from_pretrained(tmp_path / "again")) is DiTARProcessor


def test_a_speech_tokenizer(make_vae_config, tmp_path, run):
    DiTARVAE(make_vae_config()).save_pretrained(tmp_path / "vae")
    export(tmp_path / "vae", tmp_path / "out", name="org/vae")
    assert "phonemizer" not in (tmp_path / "out" / "requirements.txt").read_text()
    script = """
        from transformers import AutoModel
        vae = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
        with torch.no_grad():
            latents = vae.encode(torch.linspace(-1, 1, 24_000)[None]).mode()
            np.save("latents.npy", latents)
    """
    run(script, tmp_path / "out")
    vae = DiTARVAE.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        expected = vae.encode(torch.linspace(-1, 1, 24_000)[None]).mode()
    np.testing.assert_array_equal(np.load(tmp_path / "latents.npy"), expected)


# Without the package


def test_without_the_package_it_speaks_the_same(exported, speech, run, tmp_path):
    script = """
        from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoTokenizer
        from transformers.dynamic_module_utils import get_class_from_dynamic_module

        folder, trusted = sys.argv[1], {"trust_remote_code": True}
        np.save("speech.npy", speak(folder, **trusted))
        parts = [kind.from_pretrained(folder, **trusted) for kind in
                 (AutoConfig, AutoModel, AutoFeatureExtractor, AutoTokenizer, AutoProcessor)]
        print(*[type(part).__name__ for part in parts])

        stock = pipeline("text-to-speech", model=folder, **trusted)
        settings = dict(temperature=0.0, max_new_tokens=3, min_new_tokens=3)
        one = stock("The quick brown fox.", preprocess_params={"voice": "ada"}, generate_kwargs=settings)
        ours = get_class_from_dynamic_module("pipeline_ditar.DiTARTextToSpeechPipeline", folder)
        plain = pipeline("text-to-speech", model=folder, pipeline_class=ours, **trusted)
        other = plain([{"text": "The quick brown fox.", "voice": "ada", "seed": 1}], **settings)
        np.testing.assert_array_equal(one["audio"], other[0]["audio"])

        plain.save_pretrained("saved")
        np.testing.assert_array_equal(speak("saved", **trusted), np.load("speech.npy"))
        assert "ditar_hf" not in sys.modules
    """
    printed = run(script, exported).split()
    kinds = ["DiTARConfig", "DiTARModel", "DiTARFeatureExtractor", "DiTARTokenizer", "DiTARProcessor"]
    assert printed == kinds
    np.testing.assert_array_equal(np.load(tmp_path / "speech.npy"), speech)


@pytest.mark.parametrize("package", ["diffusers", "phonemizer"])
def test_a_package_that_is_missing_is_named(exported, run, package):
    assert (
        f"{package}"
        in run("speak(sys.argv[1], trust_remote_code=True)", exported, blocked=["ditar_hf", package], fails=True)
        .strip()
        .splitlines()[-1]
    )


def test_code_runs_only_where_it_is_trusted(exported, run):
    assert "trust_remote_code=True" in run("speak(sys.argv[1])", exported, fails=True)


# Cards


def test_a_readme_is_kept_and_otherwise_a_card_is_written(folder, exported, tmp_path):
    assert "trust_remote_code=True" in (exported / "README.md").read_text()
    card = (export(folder, tmp_path / "named", name="org/tiny", license="mit") / "README.md").read_text()
    assert "license: mit" in card and 'model="org/tiny"' in card
    shutil.copytree(folder, tmp_path / "own")
    (tmp_path / "own" / "README.md").write_text("Mine.\n")
    assert (export(tmp_path / "own", tmp_path / "kept") / "README.md").read_text() == "Mine.\n"
    with pytest.raises(ValueError, match="`license` is for a card, but .* has a README.md, which is kept"):
        export(tmp_path / "own", tmp_path / "refused", license="mit")
    assert not (tmp_path / "refused").exists()


# What is not exported


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: shutil.rmtree(path), "there is no such folder, and no Hub id is written so"),
        (lambda path: (path / "config.json").unlink(), "has no config.json"),
        (lambda path: (path / "config.json").write_text('{"model_type": "vits"}'), "is of the type 'vits'"),
        (lambda path: (path / "config.json").write_text("[1]"), r"changed/config.json' holds \[1\]"),
        (lambda path: (path / "config.json").write_text("{"), "changed/config.json' is no JSON file"),
        (lambda path: (path / "processor_config.json").write_text("null"), "processor_config.json' holds null"),
        (lambda path: (path / "model.safetensors").rename(path / "model.bin"), "has no model.safetensors.*pickled"),
        (lambda path: (path / "model.safetensors").write_bytes(b"torn"), "cannot be read"),
        (lambda path: (path / "processor_config.json").unlink(), "has no processor beside the model"),
        (lambda path: (path / "adapter_config.json").write_text("{}"), "holds an adapter. Merge it"),
    ],
)
def test_what_is_no_whole_model_is_refused_and_nothing_left(folder, tmp_path, change, message):
    shutil.copytree(folder, tmp_path / "changed")
    change(tmp_path / "changed")
    with pytest.raises(ValueError, match=message):
        export(tmp_path / "changed", tmp_path / "out" / "tiny")
    assert not list((tmp_path / "out").iterdir())


def test_a_name_that_nothing_has_is_neither_folder_nor_model(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="there is no folder 'hub_card/tiny', and no model of that name"):
        export("hub_card/tiny", tmp_path / "out" / "tiny")
    assert not list((tmp_path / "out").iterdir())


def test_what_is_there_is_not_overwritten(folder, exported):
    before = contents(exported)
    with pytest.raises(ValueError, match="there is something at .* already"):
        export(folder, exported)
    assert contents(exported) == before


def test_a_revision_is_of_the_hub(folder, tmp_path):
    with pytest.raises(ValueError, match="`revision` is 'main', but .* is a folder"):
        export(folder, tmp_path / "out", revision="main")


# There and back


def test_push_and_load_by_name(folder, speech, hub, run, tmp_path):
    push = """
        from typer.testing import CliRunner
        from ditar_hf.cli import app
        result = CliRunner().invoke(app, ["push", sys.argv[1], "org/tiny", *sys.argv[2:]])
        print(result.output)
        sys.exit(result.exit_code)
    """
    printed = run(push, folder, "--license", "mit", blocked=[], hub=hub)
    first = hub.repos["models/org/tiny"]["branches"]["main"]
    assert printed.strip() == f"{hub.url}/org/tiny/commit/{first}"
    files = hub.files("models/org/tiny")
    assert files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert {"README.md", "modeling_ditar.py", "scheduler/scheduler_config.json", "voices/ada.wav"} <= files.keys()
    # a second commit takes away the code that the new version has no more
    others = {"train/run.py": b"", "a/adapter_model.safetensors": b"", "mine.py": b"", "README.md": b"By hand."}
    older = {"older_ditar.py": b"", "model-00001-of-00002.safetensors": b"", "voices/gone.wav": b""}
    hub.commit("models/org/tiny", "main", {**files, **older, **others})
    run(push, folder, "--branch", "next", blocked=[], hub=hub)
    assert "older_ditar.py" in hub.files("models/org/tiny")
    assert hub.files("models/org/tiny", "next").keys() == files.keys() | others.keys()
    assert hub.files("models/org/tiny", "next")["README.md"] == b"By hand."
    run(push, folder, "--branch", "next", "--license", "mit", blocked=[], hub=hub)
    assert b"license: mit" in hub.files("models/org/tiny", "next")["README.md"]
    hub.commit("models/org/tiny", "main", {"README.md": b"gone"})

    script = """
        from huggingface_hub import snapshot_download
        first, trusted = sys.argv[1], {"trust_remote_code": True}
        np.save("speech.npy", speak("org/tiny", revision=first, **trusted))
        stock = pipeline("text-to-speech", model="org/tiny", revision=first, **trusted)
        print(type(stock.processor).__name__, stock("The quick brown fox.")["sampling_rate"])
        local = snapshot_download("org/tiny", revision="next")
        np.testing.assert_array_equal(speak(local, **trusted), np.load("speech.npy"))
        assert "ditar_hf" not in sys.modules
    """
    assert run(script, first, hub=hub).split() == ["DiTARProcessor", "24000"]
    np.testing.assert_array_equal(np.load(tmp_path / "speech.npy"), speech)
    assert not any(".pkl" in asked or ".bin" in asked.replace("pytorch_model.bin", "") for asked in hub.asked)


def test_parts_are_pushed_by_the_libraries_own_methods(folder, speech, hub, run, tmp_path):
    script = """
        from ditar_hf import DiTARForTextToSpeech, DiTARProcessor, DiTARScheduler
        from huggingface_hub import ModelCard
        from ditar_hf.model_card import model_card
        folder = sys.argv[1]
        model = DiTARForTextToSpeech.from_pretrained(folder)
        model.push_to_hub("org/parts")
        DiTARProcessor.from_pretrained(folder).push_to_hub("org/parts")
        model.noise_scheduler.push_to_hub("org/scheduler")
        model_card(folder, "org/parts", license="mit").push_to_hub("org/parts")

        np.save("speech.npy", speak("org/parts"))
        settings = DiTARScheduler.from_pretrained("org/scheduler").config
        assert settings["prediction_type"] == model.noise_scheduler.config["prediction_type"]
        assert ModelCard.load("org/parts").data.license == "mit"
        print(pipeline("text-to-speech", model="org/parts").model.__class__.__name__)
    """
    assert run(script, folder, blocked=[], hub=hub).split()[-1] == "DiTARForTextToSpeech"
    np.testing.assert_array_equal(np.load(tmp_path / "speech.npy"), speech)


def test_a_dataset_is_streamed(hub, run):
    rows = "".join(json.dumps({"text": f"Sentence {index}."}) + "\n" for index in range(5))
    hub.create("datasets/org/texts")
    hub.commit("datasets/org/texts", "main", {"train.jsonl": rows.encode()})
    script = """
        from datasets import load_dataset
        rows = load_dataset("org/texts", split="train", streaming=True)
        print(len([row for row in rows]), next(iter(rows))["text"])
    """
    assert run(script, blocked=[], hub=hub).strip() == "5 Sentence 0."


# What goes wrong on the way


@pytest.fixture
def published(folder, hub):
    hub.create("models/org/tiny")
    hub.commit("models/org/tiny", "main", contents(folder))
    return hub


LOAD = """
    import ditar_hf
    np.save("speech.npy", speak("org/tiny"))
"""


def test_a_download_that_is_cut_goes_on(published, run, speech, tmp_path):
    published.cut, published.num_faults = "model.safetensors", 1
    run(LOAD, blocked=[], hub=published)
    assert published.num_faults == 0
    np.testing.assert_array_equal(np.load(tmp_path / "speech.npy"), speech)


def test_a_download_that_never_ends_leaves_no_model(published, run, speech, tmp_path):
    published.cut, published.num_faults = "config.json", 1_000
    run(LOAD, blocked=[], hub=published, fails=True)
    assert not (tmp_path / "speech.npy").exists()
    published.num_faults = 0
    run(LOAD, blocked=[], hub=published)
    np.testing.assert_array_equal(np.load(tmp_path / "speech.npy"), speech)


@pytest.mark.parametrize("place", [0, -1], ids=["header", "weights"])
def test_spoilt_weights_are_refused_and_fetched_again(published, run, speech, tmp_path, place):
    published.spoil, published.spoilt_place, published.num_faults = "model.safetensors", place, 1
    printed = run(LOAD, blocked=[], hub=published, fails=True)
    assert "ValueError: the download of 'model.safetensors' from 'org/tiny' is spoilt" in printed
    assert not (tmp_path / "speech.npy").exists()
    run(LOAD, blocked=[], hub=published)
    np.testing.assert_array_equal(np.load(tmp_path / "speech.npy"), speech)


def test_spoilt_weights_are_neither_exported_nor_trusted_later(published, run, tmp_path):
    published.spoil, published.num_faults = "model.safetensors", 1
    script = """
        from huggingface_hub import snapshot_download
        from ditar_hf import DiTARForTextToSpeech
        from ditar_hf.hub import export
        calls = [lambda: export("org/tiny", "out"), lambda: DiTARForTextToSpeech.from_pretrained("org/tiny")]
        snapshot_download("org/tiny")
        try:
            calls[int(sys.argv[1])]()
        except ValueError as error:
            assert "is spoilt" in str(error)
        else:
            sys.exit("was not refused")
        calls[int(sys.argv[1])]()
    """
    for place, call in ((-1, 0), (-1, 1)):
        published.spoilt_place, published.num_faults = place, 1
        run(script, call, blocked=[], hub=published)
        shutil.rmtree(tmp_path / "home")


def test_export_by_name_and_what_is_not_on_the_hub(folder, hub, run, published, tmp_path):
    export = """
        from typer.testing import CliRunner
        from ditar_hf.cli import app
        for arguments in (["org/nothing", "out"], ["org/tiny", "out", "--revision", "v9"]):
            result = CliRunner().invoke(app, ["export", *arguments])
            print(result.exit_code, result.output)
        assert CliRunner().invoke(app, ["export", "org/tiny", "out"]).exit_code == 0
    """
    printed = run(export, blocked=[], hub=hub)
    assert printed.count("2 error: ") == 2 and "org/nothing" in printed and "v9" in printed
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
