"""Laws of outputs: their cache has two names, and what is `None` is not in them."""

import pytest
import torch
from transformers import DynamicCache

from ditar_hf.modeling.outputs_ditar import DiTARForTextToSpeechOutput, DiTARModelOutput


@pytest.mark.parametrize("output_class", [DiTARModelOutput, DiTARForTextToSpeechOutput])
def test_a_cache_has_two_names(output_class):
    cache, states = DynamicCache(), torch.zeros(1, 2, 3)
    output = output_class(last_hidden_state=states, cache=cache)
    assert output.cache is cache and output.past_key_values is cache and output["cache"] is cache
    assert output.to_tuple() == (states, cache)
    assert output_class(last_hidden_state=states).past_key_values is None


def test_the_models_give_the_cache_that_they_filled(make_model):
    model, ids = make_model().eval(), torch.tensor([[11, 12, 2]])
    for part in (model, model.model):
        output = part(ids, use_cache=True)
        assert output.past_key_values is output.cache and output.cache.get_seq_length() == 3
        assert part(ids).past_key_values is None
