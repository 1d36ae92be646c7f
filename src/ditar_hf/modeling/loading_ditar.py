"""Loading that stops where weights are missing, for the models of this package."""

import os
from typing import Any

from safetensors import SafetensorError


class CompleteWeightsMixin:
    """
    Refuses a checkpoint without all weights, where the library warns and goes on with random ones.

    It stands before `PreTrainedModel` among the bases of a class. Weights that may be missing are those that the class
    names in `_keys_to_ignore_on_load_missing`.
    """

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *model_args: Any,
        output_loading_info: bool = False,
        **kwargs: Any,
    ):
        """
        As `PreTrainedModel.from_pretrained`.

        Raises:
            ValueError: If weights are missing, or their file is cut off or damaged.
        """
        try:
            model, info = super().from_pretrained(
                pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
            )
        except SafetensorError as error:
            raise ValueError(
                f"the weights in {str(pretrained_model_name_or_path)!r} cannot be read ({error}): a file is cut off "
                "or damaged, fetch it again."
            ) from error
        if missing := sorted(info["missing_keys"]):
            raise ValueError(
                f"{str(pretrained_model_name_or_path)!r} lacks {len(missing)} weights of {cls.__name__}: "
                f"{', '.join(missing[:20])}{' …' if len(missing) > 20 else ''}. They would be random: load a complete "
                "checkpoint, or build the model from its config to train it from scratch."
            )
        return (model, info) if output_loading_info else model
