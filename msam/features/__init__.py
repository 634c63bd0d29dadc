"""Features of tracks and users: audio descriptors (Eq. 11) and frozen BERT word vectors (Eq. 12)."""
