"""Images and texts, wherever they lie."""
