"""The outbox: results on their way to their destinations."""
