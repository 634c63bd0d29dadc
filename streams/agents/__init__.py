"""Faust agents: decode, call the logic, write or send."""
