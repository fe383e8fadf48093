"""The verbs, one file for each part of the flow; each adds its own to the app."""
