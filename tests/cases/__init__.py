"""Files as real systems make them; all people in them are drawn."""

from pathlib import Path

CASES = Path(__file__).parent
