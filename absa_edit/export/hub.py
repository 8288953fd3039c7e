"""Put an export on the Hugging Face hub: only when asked to, and private unless told otherwise."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi

from absa_edit.errors import PushError


def push(folder: Path, repo: str, *, merged: bool = False, public: bool = False) -> str:
    """The address of the commit that holds the export in `folder`: a run's adapter, or its merged checkpoint.

    The repository is made where it does not exist. Raises `PushError` when there is nothing to push, no login, no
    connection, or when `repo` exists and is not as `public` asks.
    """
    path = _export(folder, merged)
    api = HfApi()
    try:
        api.create_repo(repo, private=not public, exist_ok=True)
        private = api.model_info(repo).private
        if not public and not private:
            raise PushError(f"{repo} exists and everybody can read it; push with --public, or to another name")
        if public and private:
            raise PushError(
                f"{repo} exists and is private; open it in its settings on the hub, or push without --public"
            )
        return str(api.upload_folder(repo_id=repo, folder_path=path, commit_message=f"Upload {path.name}").commit_url)
    except PushError:
        raise
    except Exception as error:  # of the hub's library, or of the HTTP library that it happens to use
        message = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PushError(
            f"{repo}: {message}; check the name and the connection, and log in with `hf auth login` or set HF_TOKEN"
        ) from error


def _export(folder: Path, merged: bool) -> Path:
    """The folder to push: the run's export of the kind asked for, or `folder` itself where it is of that kind."""
    wanted = "merged" if merged else "adapter"
    inside = folder / "export" / wanted
    if _is_export(inside):
        return inside
    if _is_export(folder) and merged == (folder / "config.json").exists():
        return folder
    raise PushError(f"{folder}: no {wanted} in it; expected a run folder with export/{wanted}, or an exported folder")


def _is_export(folder: Path) -> bool:
    return (folder / "README.md").exists() and (folder / "absa_edit.json").exists()
