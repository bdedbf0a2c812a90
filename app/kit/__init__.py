"""Generic helpers that know no word of this domain."""
