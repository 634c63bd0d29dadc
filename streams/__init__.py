"""The online side: Kafka topics in, recommendations out. Nothing else in the project imports Kafka."""
