"""Prompt templates, plain text in OpenEvolve's template format; read by `evolution.proposers.prompt`."""
