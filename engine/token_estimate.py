"""About how many tokens a text has, where no tokenizer of the model is at hand. Knows no provider; used by all who estimate."""

BYTES_PER_TOKEN = 4  # English prose; UTF-8 bytes rather than characters, so that other scripts are not undercounted


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has; 0 for an empty one, at least 1 otherwise."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)
