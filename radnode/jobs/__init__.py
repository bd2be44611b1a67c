"""The durable queue and index."""
