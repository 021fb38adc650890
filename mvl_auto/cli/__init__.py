"""The commands: one thin file each around mvl_auto.api, and what they share (common.py)."""
