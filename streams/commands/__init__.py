"""Commands of `msam`, one module a group; `streams.cli` mounts them."""
