"""Predictions against measurements: arrays in, numbers out. Needs no torch."""
