"""What is kept of ledger rows that are deleted: sums by label and bucket, see engine/store/ledger_totals.py."""

PRUNED_LABELS = ("provider", "model", "workflow_name", "status", "error_class")
PRUNED_BUCKETS = ("latency_bucket", "ttft_bucket")
"""Of the histograms; a ttft_bucket of -1 means that the call was not streamed."""
PRUNED_COUNTS = ("calls", "cost_picousd", "unknown_price", "input", "cache_read", "cache_write", "output")
PRUNED_TIMES = ("latency_ms", "ttft_ms")
"""Milliseconds, added up."""
