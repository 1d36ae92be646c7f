"""Weights that come from the Hub are what their repository holds, or they are not used."""

import hashlib
import json
import os
import re
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME


def refuse_spoilt_weights(
    repo_id: str, revision: str | None, since: float, cache_dir: str | os.PathLike | None = None
):
    """
    Compares weights that were just fetched with the SHA-256 that the Hub gave for them, and deletes what differs.

    huggingface_hub compares only the size of what it fetches over plain HTTP. The cache calls a file by its SHA-256,
    so that nothing is asked again.

    Args:
        repo_id (`str`): The repository.
        revision (`str`, *optional*): The branch, tag or commit that was loaded. Defaults to `main`.
        since (`float`): Older files, by their time of change in seconds since 1970, were compared before.
        cache_dir (`str` or `os.PathLike`, *optional*): Where they lie. Defaults to the cache of huggingface_hub.

    Raises:
        ValueError: If a file differs.
    """
    for name in _names(repo_id, revision, cache_dir):
        path = try_to_load_from_cache(repo_id, name, cache_dir=cache_dir, revision=revision)
        blob = Path(path).resolve()
        if not re.fullmatch("[0-9a-f]{64}", blob.name) or blob.stat().st_mtime < since:
            continue
        with open(blob, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != blob.name:
            os.unlink(path)
            os.unlink(blob)
            raise ValueError(
                f"the download of {name!r} from {repo_id!r} is spoilt (SHA-256 {digest[:12]}…, not {blob.name[:12]}…)"
                " and was deleted. Load it again."
            )


def _names(repo_id: str, revision: str | None, cache_dir: str | os.PathLike | None) -> list[str]:
    """The files of weights that are in the cache."""
    index = try_to_load_from_cache(repo_id, SAFE_WEIGHTS_INDEX_NAME, cache_dir=cache_dir, revision=revision)
    names = {SAFE_WEIGHTS_NAME}
    if isinstance(index, str):
        names |= set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values())
    return [
        name
        for name in sorted(names)
        if isinstance(try_to_load_from_cache(repo_id, name, cache_dir=cache_dir, revision=revision), str)
    ]
