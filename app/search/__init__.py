"""Searching: from a query to ranked matches and their contact sheet."""
