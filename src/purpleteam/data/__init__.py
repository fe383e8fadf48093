"""Images and where they come from; no torch."""
