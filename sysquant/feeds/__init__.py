"""Where market events come from: Kafka, recorded history, a seeded market; and their JSON."""
