"""The durable core: runs, steps, the language, the store and the ledger. Knows no HTTP, queue or LLM client."""
