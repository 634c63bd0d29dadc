"""Recommenders that MSAM is held against."""
