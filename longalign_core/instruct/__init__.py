"""Self-instruct: prompts, parsing, generation, and the mixture with short instruction sets."""
