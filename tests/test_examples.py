"""The recipes' files are what the commands read."""

from pathlib import Path

import pytest

from ditar_hf import DiTARVAEConfig
from ditar_hf.training.vae_arguments import VAETrainingArguments

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda path: path.relative_to(EXAMPLES).as_posix()
)
def test_a_training_of_the_tokenizer_is_described_in_full(path):
    arguments = VAETrainingArguments.from_yaml(path)
    assert DiTARVAEConfig(**arguments.vae).frame_rate == 40
