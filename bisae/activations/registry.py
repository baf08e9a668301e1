"""The stores by name."""

from bisae.activations.cached import Cached
from bisae.activations.rolling import Rolling
from bisae.activations.store import Store
from bisae.activations.streaming import Streaming

STORES: dict[str, type[Store]] = {"cached": Cached, "rolling": Rolling, "streaming": Streaming}
