"""What a new configuration changes in a running worker. One object a process, read anew for each call, request and webhook."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Rules:
    """`allow_private_networks` is for webhooks and http steps; without `alert_url` alerts go to the log alone."""

    webhook_secret: str = field(default="", repr=False)
    alert_url: str | None = None
    allow_private_networks: bool = False
    reject_unknown_prices: bool = False
