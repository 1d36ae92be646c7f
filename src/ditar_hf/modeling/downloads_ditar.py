"""Weights that come from the Hub are what their repository holds, or they are not used."""

import hashlib
import os
import re
from pathlib import Path

from huggingface_hub import try_to_load_from_cache


def cached_folder(
    repo_id: str, revision: str | None = None, cache_dir: str | os.PathLike | None = None, subfolder: str = ""
) -> Path | None:
    """
    Where the cache of huggingface_hub holds the model of a repository.

    Args:
        repo_id (`str`): The repository.
        revision (`str`, *optional*): A branch, tag or commit. Defaults to `main`.
        cache_dir (`str` or `os.PathLike`, *optional*): Defaults to the cache of huggingface_hub.
        subfolder (`str`, *optional*, defaults to `""`): Of the model in the repository.

    Returns:
        `Path` of a folder with links to the files, or `None` if there is no model.
    """
    for name in ("config.json", "adapter_config.json"):
        file = f"{subfolder}/{name}" if subfolder else name
        path = try_to_load_from_cache(repo_id, file, cache_dir=cache_dir, revision=revision)
        if isinstance(path, str):
            return Path(path).parent
    return None


def refuse_spoilt_weights(folder: Path, repo_id: str):
    """
    Compares weights in the cache with the SHA-256 that the Hub gave for them, and deletes what differs.

    huggingface_hub compares only the size of what it fetches over plain HTTP. Its cache calls a file by its SHA-256,
    so that nothing is asked again; where it holds no links to such files, nothing is compared.

    Args:
        folder (`Path`): In the cache.
        repo_id (`str`): The repository, for messages.

    Raises:
        ValueError: If a file differs.
    """
    for path in sorted(folder.glob("*.safetensors")):
        blob = path.resolve()
        if not re.fullmatch("[0-9a-f]{64}", blob.name):
            continue
        with open(blob, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != blob.name:
            os.unlink(path)
            os.unlink(blob)
            raise ValueError(
                f"the download of {path.name!r} from {repo_id!r} is spoilt (SHA-256 {digest[:12]}…, not"
                f" {blob.name[:12]}…) and was deleted. Load it again."
            )
