"""Measures any model package on any labelled folder."""
