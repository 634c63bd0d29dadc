"""The method: SiMF, features, the MSAM network, training. Imports neither Kafka nor Faust."""
