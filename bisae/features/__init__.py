"""What makes each latent fire, and what follows from it: language, meaning, alignment."""
