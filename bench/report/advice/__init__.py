"""Advice in words, tables and a page."""
