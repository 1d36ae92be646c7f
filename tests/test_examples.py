"""The files of the recipes are what the commands read."""

from pathlib import Path

import pytest

from ditar_hf import DiTARConfig, DiTARVAEConfig
from ditar_hf.training.run import TrainingRun
from ditar_hf.training.vae_arguments import VAETrainingArguments

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def files(*folders):
    paths = sorted(path for folder in folders for path in (EXAMPLES / folder).rglob("*.yaml"))
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.relative_to(EXAMPLES).as_posix())


def test_every_file_is_read_by_a_command():
    folders = {path.parent.name for path in EXAMPLES.rglob("*.yaml")}
    assert folders <= {"tiny", "tokenizer", "finetune", "train", "accelerate"}


@files("tiny", "tokenizer")
def test_a_training_of_the_tokenizer_is_described_in_full(path):
    arguments = VAETrainingArguments.from_yaml(path)
    assert DiTARVAEConfig(**arguments.vae).frame_rate == 40


@files("finetune", "train")
def test_a_training_of_the_model_is_described_but_for_what_the_command_line_names(path, tmp_path):
    run = TrainingRun.from_yaml(path, training={"output_dir": str(tmp_path), "use_cpu": True})
    assert run.make_arguments().max_steps > 0
    if "preset" in run.config:
        DiTARConfig.from_preset(**{"name" if k == "preset" else k: v for k, v in run.config.items()})
