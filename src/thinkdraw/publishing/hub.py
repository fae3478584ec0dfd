"""Uploads a folder to the Hugging Face hub."""

from pathlib import Path

from thinkdraw.errors import UserError


def push(folder: Path, repository: str, private: bool) -> None:
    """Make the repository if it is not there, and upload the folder in one commit.

    The token is the hub library's own: HF_TOKEN, or what `hf auth login` stored. Raises UserError if the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="thinkdraw export")
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        line = " ".join(str(error).split())[:200].rstrip(".")
        raise UserError(
            f"push={repository}: the hub refused ({line}). The export is complete in {folder}. Set HF_TOKEN to a token that may "
            "write there, or upload the folder yourself."
        ) from error
