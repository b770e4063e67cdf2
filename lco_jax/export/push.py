"""Uploads of exports to the Hugging Face hub."""

from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError


def check_push(repository: str) -> None:
    """Check, before any work, that an upload can succeed.

    Raises:
        ValueError: not a name such as `ORG/NAME`, or no token that the hub knows.
        OSError: the hub cannot be reached.
    """
    try:
        huggingface_hub.utils.validate_repo_id(repository)
    except HFValidationError as error:
        raise ValueError(f"--push-to {repository}: {error}") from error
    if repository.count("/") != 1:
        raise ValueError(f"--push-to {repository}: expected USER/NAME or ORGANISATION/NAME")
    if huggingface_hub.get_token() is None:
        raise ValueError(
            f"--push-to {repository} needs a token that may write: run `hf auth login`, or set "
            "HF_TOKEN (https://huggingface.co/settings/tokens)"
        )
    try:
        huggingface_hub.HfApi().whoami()
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code == 401:
            raise ValueError(
                f"--push-to {repository}: the hub does not accept the token; run `hf auth login`, "
                "or set HF_TOKEN to a valid one"
            ) from error
        raise


def push(folder: Path, repository: str, *, private: bool) -> str:
    """Upload an export, to a new repository if there is none yet; returns its address.

    Args:
        private: whether a new repository is for its owners alone.
    """
    api = huggingface_hub.HfApi()
    url = api.create_repo(repository, private=private, exist_ok=True)
    api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message="Export of lco_jax")
    return str(url)
