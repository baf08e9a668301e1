"""The stages by name."""

from collections.abc import Callable, Iterator
from typing import Any

from on_device.analysis_stage import analysis
from on_device.caching import caching
from on_device.end_to_end import end_to_end
from on_device.gates import gates
from on_device.parts import parts
from on_device.peers_stage import peers
from on_device.ranks import ranks
from on_device.resume import resume
from on_device.steps_stage import steps
from on_device.timing import Budget

STAGES: dict[str, Callable[[Budget], Iterator[dict[str, Any]]]] = {
    stage.__name__: stage for stage in (gates, steps, resume, peers, parts, caching, analysis, end_to_end, ranks)
}
