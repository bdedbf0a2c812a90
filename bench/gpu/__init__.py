"""What a machine with a GPU makes of Passerby, measured by one command and without network."""
