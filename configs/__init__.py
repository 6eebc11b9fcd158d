"""Configuration, and what every stage shares to read settings, write files and show progress."""
