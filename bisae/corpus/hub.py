"""Datasets of the Hugging Face hub (`corpus=hf`, `corpus=wikipedia`)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bisae.corpus.streamed import StreamedCorpus
from bisae.runtime.errors import Refused
from bisae.runtime.hub import reachable

OTHERWISE = "without the hub set HF_ENDPOINT to a mirror, or give local files: corpus=jsonl"


@dataclass(frozen=True)
class HubCorpus(StreamedCorpus):
    """Datasets of the hub, streamed.

    `sources` maps each language to `path`, `name`, `split` and `revision`, the arguments of `datasets.load_dataset`. A
    revision must be a whole commit, whose content never changes: so the checksum needs no network.
    """

    by_language = "sources"

    sources: Mapping[str, Mapping[str, Any]]

    def __post_init__(self) -> None:
        super().__post_init__()
        for language, source in self.sources.items():
            if not isinstance(source, Mapping) or set(source) != {"path", "name", "split", "revision"}:
                remedy = "needs path, name (of a configuration, or null), split and revision"
                raise Refused("sources", f"{{{language}: {source}}}", remedy)
            if not re.fullmatch("[0-9a-f]{40}", str(source["revision"])):
                remedy = "must be a commit of 40 digits: a branch or tag can change under the name of a finished cell"
                raise self._refused(language, f"the revision {source['revision']} {remedy}")
            # load_dataset would read a folder of this name, of no matter what revision.
            if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source["path"])) or Path(source["path"]).exists():
                raise self._refused(language, "the path must be owner/name on the hub, and no local folder")
        for other, language in combinations(self.sources, 2):
            if self.sources[other] == self.sources[language]:
                raise self._refused(language, f"the same text as of {other}: it cannot be both {other} and {language}")

    def _refused(self, language: str, remedy: str) -> Refused:
        return Refused("sources", f"{{{language}: {self.sources[language]['path']}}}", remedy)

    def content(self) -> object:
        return list(self.sources.values())

    def records(self, language: str) -> Any:
        source = self.sources[language]
        try:
            if not reachable():
                raise ConnectionError("the hub does not answer")
            from datasets import load_dataset  # slow to import

            # Where the hub fails it would read the user's cache instead, of any revision and in another order.
            with TemporaryDirectory() as empty:
                return load_dataset(**source, streaming=True, cache_dir=empty)
        except (OSError, ValueError) as error:
            raise self._refused(language, f"{error}; {OTHERWISE}") from error
