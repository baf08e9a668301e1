"""Where Hydra looks for sweepers: in this package only. It has a leading `_` so that Hydra does not load it unasked."""

from bisae.cli.search import Search as _Search


class Search(_Search):
    """See `bisae.cli.search.Search`."""
