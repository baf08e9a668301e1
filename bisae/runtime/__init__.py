"""What every part of bisae stands on; imports nothing else of it."""
