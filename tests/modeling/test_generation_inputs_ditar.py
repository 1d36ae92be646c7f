"""Laws of what `generate` takes: the forms of an input that are the same, and those that are refused."""

import numpy as np
import pytest
import torch

IDS = torch.tensor([[0, 11, 12, 2], [7, 8, 9, 2]])
MASK = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
FIXED = {"temperature": 1.0, "num_inference_steps": 2, "max_new_tokens": 2, "min_new_tokens": 2}


@pytest.fixture
def model(make_model):
    return make_model().eval()


@pytest.fixture
def speak(model):
    def speak(input_ids=IDS, **arguments):
        arguments = {"attention_mask": MASK, "generator": torch.Generator().manual_seed(0), **FIXED, **arguments}
        return torch.stack(model.generate(input_ids, **arguments).audio)

    return speak


@pytest.mark.parametrize(
    "arguments",
    [
        {"input_ids": IDS.int()},
        {"attention_mask": MASK.bool()},
        {"attention_mask": MASK.float()},
        {"attention_mask": None},
        {"temperature": np.float32(1)},
        {"num_inference_steps": np.int64(2)},
        {"max_patches_per_token": 1e308},
        {"min_patches_per_token": 1e308},
        {"spare_patches": 10**400},
    ],
)
def test_forms_that_are_the_same(speak, arguments):
    assert torch.equal(speak(**arguments), speak())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_ids": IDS.tolist()}, "`input_ids` is of type list, not a torch.Tensor"),
        ({"input_ids": IDS.numpy()}, "`input_ids` is of type ndarray"),
        ({"input_ids": IDS.float()}, "`input_ids` has type torch.float32"),
        ({"input_ids": IDS.bool()}, "`input_ids` has type torch.bool"),
        ({"input_ids": IDS - 1}, "`input_ids` holds ids from -1 to 11"),
        ({"input_ids": IDS * 1000}, "`input_ids` holds ids from 0 to 12000"),
        ({"input_ids": IDS[0]}, "`input_ids` must be"),
        ({"attention_mask": [[1]]}, "`attention_mask` is of type list"),
        ({"attention_mask": MASK[:1]}, "`attention_mask` .* must have the shape"),
        ({"prompt_values": [0.5]}, "`prompt_values` is of type list"),
        ({"prompt_values": torch.ones(2, 2400).short()}, "`prompt_values` has type torch.int16"),
        ({"prompt_latents": torch.ones(2, 4, 64).long()}, "`prompt_latents` has type torch.int64"),
        ({"prompt_latents_mask": 5}, "`prompt_latents_mask` is of type int"),
        ({"generator": 5}, "`generator` is or holds 5"),
        ({"generator": [torch.Generator(), 5]}, "`generator` is or holds 5"),
        ({"generator": [torch.Generator(), None]}, "`generator` is or holds None"),
        ({"generator": np.random.default_rng(0)}, "`generator` is or holds Generator"),
        ({"generator": []}, "`generator` is a list of 0 for 2 rows"),
        ({"streamer": 5}, "`streamer` is of type int"),
        ({"streamer": print}, "`streamer` is of type builtin_function"),
        ({"generation_config": {"temperature": 0.5}}, "`generation_config` is of type dict"),
        ({"temperature": 10**400}, "`temperature` must be a finite number"),
        ({"guidance_scale": 10**400}, "`guidance_scale` must be a finite number"),
        ({"num_inference_steps": 10**30}, "`num_inference_steps` must be a whole number from 1 to 1000"),
    ],
)
def test_what_is_refused(speak, arguments, message):
    with pytest.raises(ValueError, match=message):
        speak(**arguments)
