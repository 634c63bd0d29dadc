"""Listening logs in one canonical layout, and how other layouts become it."""
