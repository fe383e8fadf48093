"""The stages of a run: data, models, attacks, defences, scan, threats, serve."""
