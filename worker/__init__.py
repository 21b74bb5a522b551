"""The queue comes in here: claims steps, executes them, completes them; delivers webhooks; keeps its processes alive."""
