"""Proposers: who suggests the next program, and how it is asked.

An OpenAI-compatible endpoint, or the embedded operator catalogue behind one.
"""
