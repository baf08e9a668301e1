"""Embedding spaces of tokens, in which tokens of one meaning lie together (config group `space`)."""
