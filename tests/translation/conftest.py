from tests.pair_of_lms import final

__all__ = ["final"]
