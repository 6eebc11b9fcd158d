"""Features and matured labels become checked, calibrated, registered models."""
