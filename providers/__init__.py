"""LLM providers: one wire dialect a class, routing between them, failover, prices. Knows no database and no HTTP framework."""
