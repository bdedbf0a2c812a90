"""From the bytes of a picture to its embedding; knows nothing of HTTP or of the database."""
