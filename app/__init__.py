"""Passerby, the service: crops in, ranked matches out."""
