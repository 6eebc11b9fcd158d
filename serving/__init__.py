"""A registered model and an online store become decisions over HTTP, each one recorded."""
