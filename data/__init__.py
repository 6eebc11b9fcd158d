"""Raw events become validated, time-ordered transactions with their labels kept apart."""
