"""The chapters of the report, one file each; each declares what it is about, and measures nothing.

They come in the order of the flow: data, models, evasion, poison, certify, defences, backdoors,
scan, threats, serve. A plug-in adds one to CHAPTERS.
Around them stand `first`, the first screen, and `closing`: what was not tested, and all records.
"""
