"""The space of any sentence-transformers model."""

from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float

from bisae.features.spaces.text_space import TextSpace
from bisae.runtime.errors import Refused
from bisae.runtime.hub import reachable
from bisae.runtime.naming import checksum
from bisae.runtime.ranges import NotNegative, Text

UNUSED = ["onnx/*", "openvino/*", "*.onnx", "*.h5", "*.msgpack", "*.ot"]  # the same weights for other libraries


class SentenceTransformersSpace(TextSpace):
    """Vectors of a sentence-transformers model: a hub repository at a `revision`, or a local folder."""

    name = "sentence_transformers"

    def __init__(self, model: Text, revision: str | None, clustering: str, distance: NotNegative) -> None:
        super().__init__(clustering, distance)
        self._model, self._revision = model, revision
        if find_spec("sentence_transformers") is None:
            raise Refused("space", self.name, "is not installed: pip install sentence-transformers")

    @cached_property
    def folder(self) -> Path:
        """The folder of the model, which is downloaded if it is not there yet."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        local = Path(self._model).expanduser()
        if local.is_dir():
            return local
        offline = not reachable()
        try:
            folder = snapshot_download(
                self._model, revision=self._revision, ignore_patterns=UNUSED, local_files_only=offline
            )
        except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
            remedy = f"neither a local folder nor a model that the hub gives: {error}"
            raise Refused("model", self._model, remedy) from error
        return Path(folder)

    @property
    def source(self) -> dict[str, object]:
        files = sorted(file for file in self.folder.rglob("*") if file.is_file())
        return {"model": Path(self._model).name, "files": checksum(files)}

    def embed(self, texts: list[str]) -> Float[np.ndarray, "text dimension"]:
        from sentence_transformers import SentenceTransformer

        try:
            model = SentenceTransformer(str(self.folder))
        except (OSError, ValueError) as error:
            raise Refused("model", self._model, f"cannot be loaded: {error}") from error
        return model.encode(texts, show_progress_bar=False)
