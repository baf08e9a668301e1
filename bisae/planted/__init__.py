"""A planted bilingual world: text, and an LM's activations on it, whose features are all known."""
