"""Download repositories of the Hugging Face hub."""

from pathlib import Path

from bisae.lm.weight_files import weight_files
from bisae.runtime.errors import Refused
from bisae.runtime.hub import reachable

NOT_WEIGHTS = ["config.json", "*.index.json", "*token*.json", "vocab*", "merges*", "*.model"]


def fetch(repository: str, revision: str | None, trust_remote_code: bool, field: str = "path") -> Path:
    """Return the local folder of a hub repository, downloaded if necessary, with the weights transformers would load.

    Without a network the folder comes from the local hub cache; an interrupted download may have left weights out.

    Args:
        repository: owner/name on the hub.
        trust_remote_code: Download Python files too.
        field: Field that is refused if the repository cannot be had: `path` or `tokenizer`.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    offline = not reachable()
    always = [*NOT_WEIGHTS, *(["*.py"] if trust_remote_code else [])]

    def snapshot(weights: list[str]) -> Path:
        files = [*always, *weights]
        return Path(snapshot_download(repository, revision=revision, allow_patterns=files, local_files_only=offline))

    try:
        folder = snapshot(["model.safetensors"])
        return snapshot([file.name for file in weight_files(folder)] or ["pytorch_model.bin"])
    except LocalEntryNotFoundError as error:
        remedy = (
            "neither a local folder nor in the local hub cache with all its files, and the hub cannot be reached; "
            f"give a folder, or run `hf download {repository}` with a network first"
        )
        raise Refused(field, repository, remedy) from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise Refused(field, repository, f"the hub says: {error}") from error
