"""Fault injection: kill, damage and disconnect a service repeatedly, and check that it keeps all acknowledged crops."""
