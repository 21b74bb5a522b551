"""HTTP comes in here: the OpenAI-compatible routes, runs, workflows, the ledger, the pages."""
