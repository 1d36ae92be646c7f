import json

import pytest
import yaml

from ditar_hf.training.vae_arguments import VAETrainingArguments


def write(tmp_path, **values):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"output_dir": "out", "data": [{"path": "speech"}], **values}))
    return path


def test_what_is_written_is_read(make_vae_arguments, tmp_path):
    arguments = make_vae_arguments()
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(arguments.to_dict()))))
    assert VAETrainingArguments.from_yaml(path) == arguments


def test_defaults_are_the_papers(tmp_path):
    arguments = VAETrainingArguments.from_yaml(write(tmp_path))
    assert (arguments.learning_rate, arguments.adam_betas) == (1e-4, (0.8, 0.99))
    assert arguments.discriminators.period_channels[-1] == 1024


def test_a_number_without_a_point_is_a_number(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("output_dir: out\ndata: [{path: speech, weight: 2}]\nlearning_rate: 1e-3\n")
    arguments = VAETrainingArguments.from_yaml(path)
    assert arguments.learning_rate == 1e-3 and arguments.data[0].weight == 2.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lerning_rate": 1}, "`lerning_rate`.*did you mean `learning_rate`"),
        ({"crops": {"crop_secnds": 1}}, "`crop_secnds`.*did you mean `crop_seconds`"),
        ({"data": [{"path": "a", "wieght": 1}]}, "`wieght`.*did you mean `weight`"),
        ({"vae": {"latent_dims": 8}}, "`latent_dims`.*did you mean `latent_dim`"),
        ({"data": []}, "`data` is empty"),
        ({"data": [{}]}, "`path` is missing"),
        ({"data": "speech"}, "data.*is 'speech'"),
        ({"data": [{"path": "a", "format": "mp3"}]}, "format"),
        ({"data": [{"path": "a", "weight": 0}]}, "`weight`"),
        ({"max_steps": "many"}, "max_steps.*'many'"),
        ({"max_steps": 0}, "`max_steps`"),
        ({"max_steps": True}, "max_steps"),
        ({"cpu": "yes please"}, "cpu"),
        ({"adam_betas": [0.9]}, "adam_betas"),
        ({"learning_rate": 0}, "`learning_rate`"),
        ({"ema_decay": 1.0}, "`ema_decay`"),
        ({"mixed_precision": "fp8"}, "`mixed_precision`"),
        ({"lr_scheduler_type": "cosinus"}, "`lr_scheduler_type`"),
        ({"vae": {"latent_dims": 8}, "start_from": "vae"}, "`latent_dims`.*did you mean `latent_dim`"),
        ({"lr_scheduler_type": "reduce_lr_on_plateau"}, "`lr_scheduler_type`"),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "`lr_scheduler_kwargs`"),
        ({"lr_scheduler_kwargs": {"cycles": 2}}, "`lr_scheduler_kwargs`"),
        ({"freeze_encoder_step": -1}, "`freeze_encoder_step`"),
        ({"discriminators": {"periods": [0]}}, "`periods`"),
        ({"warmup_steps": -1}, "`warmup_steps`"),
        ({"discriminators": {"periods": [], "num_scales": 0}}, "`periods`"),
    ],
)
def test_bad_files_are_refused(tmp_path, values, message):
    with pytest.raises(ValueError, match=message):
        VAETrainingArguments.from_yaml(write(tmp_path, **values))


@pytest.mark.parametrize("text", ["- a\n- b\n", "", "a: [", "\x00"])
def test_what_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="run.yaml"):
        VAETrainingArguments.from_yaml(path)
