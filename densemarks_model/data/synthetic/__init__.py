"""Rendered heads with exact canonical coordinates: people, hair, things worn, light, cameras and their faults."""
