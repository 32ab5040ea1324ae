"""Relatives of SSD: what it came from, what stands beside it, what came after; one file each, on the core's parts."""
