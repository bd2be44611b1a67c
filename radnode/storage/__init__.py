"""Sealing, keys and the sealed objects on disk."""
