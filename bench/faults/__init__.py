"""Fault injection: kill, damage and disconnect a service repeatedly, and check what it keeps."""
