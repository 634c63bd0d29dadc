"""How systems are compared: protocols, measures and reports. Never imports Kafka."""
