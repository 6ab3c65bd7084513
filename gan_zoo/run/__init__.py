"""A run's folder: claimed, begun, resumed, checked, named and reported."""
