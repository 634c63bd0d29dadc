"""Health, metrics and one user's list over HTTP; loopback unless told otherwise."""
