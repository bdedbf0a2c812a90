"""A service killed, damaged and cut off, again and again, and what it keeps."""
